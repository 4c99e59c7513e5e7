"""The loop that writes `post-vectors`, in a process of its own, so that it can be killed:
`python -m tests.kit.children.post_vectors BOOTSTRAP GENERATION [CRASH_POINT:PASSES]`. Its generation serves."""

import signal
import sys
from threading import Event

from prometheus_client import CollectorRegistry

from schemas.ids import Generation
from streams.encode.metrics import EncodeMetrics
from streams.encode.post_vectors.writer import PostVectorsWriter
from streams.kafka.heartbeat import NO_HEARTBEAT
from streams.settings import KafkaSettings
from tests.kit.children import arm_crash_point
from tests.kit.post_vectors import Serving


def main(bootstrap_servers: str, generation: str, crash: str = "") -> None:
    arm_crash_point(crash)
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    serving = Serving()
    serving.promote(Generation(generation))
    PostVectorsWriter(
        KafkaSettings(bootstrap_servers=bootstrap_servers),
        serving.post_vectors_of(Generation(generation)),
        "test-0",
        EncodeMetrics(CollectorRegistry()),
        NO_HEARTBEAT,
    ).run(stop)


if __name__ == "__main__":
    main(*sys.argv[1:])
