"""An encode stage in a process of its own, so that it can be stopped and killed:
`python -m tests.kit.children.encode_stage BOOTSTRAP GENERATION [CRASH_POINT:PASSES] [mended]`. With `mended` its
encoder is a MendedEncoder."""

import signal
import sys
from threading import Event

from prometheus_client import CollectorRegistry

from schemas.ids import Generation
from streams.encode.metrics import EncodeMetrics
from streams.encode.stage import EncodeStage
from streams.settings import EncodeSettings, KafkaSettings
from tests.kit.children import arm_crash_point
from tests.kit.encoders import HashEncoder, MendedEncoder


def main(bootstrap_servers: str, generation: str, crash: str = "", mended: str = "") -> None:
    arm_crash_point(crash)
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    kafka = KafkaSettings(bootstrap_servers=bootstrap_servers)
    settings = EncodeSettings(batch_records=50, interval_s=0.02)
    encoder = MendedEncoder() if mended else HashEncoder()
    EncodeStage(
        kafka, settings, encoder, Generation(generation), "test-0", metrics=EncodeMetrics(CollectorRegistry())
    ).run(stop)


if __name__ == "__main__":
    main(*sys.argv[1:])
