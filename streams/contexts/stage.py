"""One worker of the context stage: puts its processor and its transactional loop together.

Owns the worker's identity and its folder of rows.
"""

import threading
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from contexts.settings import ContextRules
from schemas import stages
from schemas.times import now_us
from schemas.topics import FIRST_CONTEXTS
from streams.contexts.metrics import ContextMetrics
from streams.contexts.processor import STAGE, ContextProcessor
from streams.contexts.role import ONLY_VERSION, Role
from streams.contexts.rows_folder import rows_folder
from streams.kafka.heartbeat import NO_HEARTBEAT, Heartbeat
from streams.kafka.node_id import node_id
from streams.kafka.pace import FULL_PACE, Pace
from streams.kafka.periodic import repeating
from streams.kafka.transactional_loop import TransactionalLoop
from streams.settings import ContextsSettings, KafkaSettings

MAX_DUE_ROWS: Final = 1000
"""At most this many due rows of one partition go into one transaction; a member's context has up to 50 kB."""
_COMPACTION_CHECK_S: Final = 60.0


class ContextStage:
    """`data_dir` is the data folder of this machine. `slot` tells its workers apart: of two workers of a version with
    the same slot the later one fences the other."""

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: ContextsSettings,
        rules: ContextRules,
        data_dir: Path,
        slot: str,
        *,
        heartbeat: Heartbeat = NO_HEARTBEAT,
        role: Role = ONLY_VERSION,
        pace: Pace = FULL_PACE,
        metrics: ContextMetrics | None = None,
    ) -> None:
        """`pace` may hold back a version that is being rebuilt."""
        metrics = metrics or ContextMetrics(CollectorRegistry())
        max_due_rows = min(settings.batch_records, MAX_DUE_ROWS)
        self._erase_within_s = kafka.erase_within_s
        rows = rows_folder(data_dir, slot, role.version)
        self._processor = ContextProcessor(
            kafka, rules, rows, max_due_rows, now_us, beat=heartbeat.still_working, metrics=metrics, role=role
        )
        reads = stages.contexts_reads(role.version)
        stage = STAGE if role.version == FIRST_CONTEXTS else f"{STAGE}-v{role.version}"
        self._loop = TransactionalLoop(
            kafka,
            self._processor,
            group=reads.group,
            topics=reads.topics,
            transactional_id=f"{stage}.{node_id(kafka, data_dir)}.{slot}",
            batch_records=lambda: settings.batch_records,
            interval_s=settings.interval_s,
            reported_topics=frozenset(role.names.changelogs),
            heartbeat=heartbeat,
            pace=pace,
            on_transaction=metrics.transactions.took,
        )

    def run(self, stop: threading.Event) -> None:
        """Returns after `stop` is set. After a StreamsError the process must end and be started again."""
        check_every_s = min(_COMPACTION_CHECK_S, self._erase_within_s / 8)
        with repeating("taking erased rows out of their files", check_every_s, self._compact):
            self._loop.run(stop)

    def _compact(self) -> None:
        # Half the time, because a cell that is deleted right after a compaction waits for the next one.
        self._processor.compact_if_due(self._erase_within_s / 2)
