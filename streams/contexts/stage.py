"""One worker of the context stage: puts its processor and its transactional loop together.

Owns the worker's identity and its folder of rows.
"""

import threading
from pathlib import Path
from typing import Final

from contexts.settings import ContextRules
from schemas import stages
from schemas.times import now_us
from streams.contexts.processor import CHANGELOGS, STAGE, ContextProcessor
from streams.kafka.heartbeat import NO_HEARTBEAT, Heartbeat
from streams.kafka.node_id import node_id
from streams.kafka.periodic import repeating
from streams.kafka.transactional_loop import TransactionalLoop
from streams.settings import ContextsSettings, KafkaSettings

ROWS_FOLDER: Final = "rows"
MAX_DUE_ROWS: Final = 1000
"""At most this many due rows of one partition go into one transaction; a member's context has up to 50 kB."""
_COMPACTION_CHECK_S: Final = 60.0


class ContextStage:
    """`data_dir` is the data folder of this machine. `slot` tells its workers apart: of two workers with the same slot
    the later one fences the other."""

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: ContextsSettings,
        rules: ContextRules,
        data_dir: Path,
        slot: str,
        *,
        heartbeat: Heartbeat = NO_HEARTBEAT,
    ) -> None:
        max_due_rows = min(settings.batch_records, MAX_DUE_ROWS)
        self._erase_within_s = kafka.erase_within_s
        rows = data_dir / ROWS_FOLDER / slot
        self._processor = ContextProcessor(kafka, rules, rows, max_due_rows, now_us, beat=heartbeat.still_working)
        self._loop = TransactionalLoop(
            kafka,
            self._processor,
            group=stages.CONTEXTS.group,
            topics=stages.CONTEXTS.topics,
            transactional_id=f"{STAGE}.{node_id(data_dir)}.{slot}",
            batch_records=lambda: settings.batch_records,
            interval_s=settings.interval_s,
            reported_topics=frozenset(CHANGELOGS),
            heartbeat=heartbeat,
        )

    def run(self, stop: threading.Event) -> None:
        """Returns after `stop` is set. After a StreamsError the process must end and be started again."""
        check_every_s = min(_COMPACTION_CHECK_S, self._erase_within_s / 8)
        with repeating("taking erased rows out of their files", check_every_s, self._compact):
            self._loop.run(stop)

    def _compact(self) -> None:
        # Half the time, because a cell that is deleted right after a compaction waits for the next one.
        self._processor.compact_if_due(self._erase_within_s / 2)
