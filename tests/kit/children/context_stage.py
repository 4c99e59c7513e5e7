"""A context stage in a process of its own, so that it can be stopped, frozen and killed:
`python -m tests.kit.children.context_stage BOOTSTRAP DATA_DIR SLOT [CRASH_POINT:PASSES]`."""

import os
import signal
import sys
from pathlib import Path
from threading import Event

from contexts.settings import ContextRules
from streams.contexts.stage import ContextStage
from streams.errors import StreamsError
from streams.settings import ContextsSettings, KafkaSettings
from tests.kit.children import arm_crash_point

REFUSED = 3
SESSION = {"session.timeout.ms": "2000", "heartbeat.interval.ms": "300"}
"""Short, so that the partitions of a dead worker move soon."""


def main(bootstrap_servers: str, data_dir: str, slot: str, crash: str = "") -> None:
    arm_crash_point(crash)
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    kafka = KafkaSettings.model_validate({"bootstrap_servers": bootstrap_servers, "options": SESSION})
    settings = ContextsSettings(batch_records=20, interval_s=0.01)
    stage = ContextStage(kafka, settings, ContextRules(), Path(data_dir), slot)
    print("started", flush=True)
    try:
        stage.run(stop)
    except StreamsError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(REFUSED)


if __name__ == "__main__":
    main(*sys.argv[1:])
