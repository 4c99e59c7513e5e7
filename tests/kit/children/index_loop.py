"""An index loop in a process of its own, so that it can be stopped and killed:
`python -m tests.kit.children.index_loop BOOTSTRAP GENERATION JOURNAL [CRASH_POINT:PASSES]`."""

import signal
import sys
from pathlib import Path
from threading import Event
from typing import Any, cast

from schemas.ids import Generation
from streams.index.loop import IndexLoop
from streams.settings import IndexSettings, KafkaSettings
from tests.kit.children import arm_crash_point
from tests.kit.journal_tier import JournalTier

SESSION = {"session.timeout.ms": "2000", "heartbeat.interval.ms": "300"}
"""Short: the next process waits this long for the partitions of a dead one."""


def main(bootstrap_servers: str, generation: str, journal: str, crash: str = "") -> None:
    arm_crash_point(crash)
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    loop = IndexLoop(
        KafkaSettings.model_validate({"bootstrap_servers": bootstrap_servers, "options": SESSION}),
        IndexSettings(batch_records=50, linger_s=0.02),
        cast(Any, JournalTier(Path(journal))),
        Generation(generation),
        tombstones_kept_s=3600,
    )
    print("started", flush=True)
    loop.run(stop)


if __name__ == "__main__":
    main(*sys.argv[1:])
