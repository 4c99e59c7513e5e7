"""The context stage: one worker that turns events into contexts, exactly once. Owns its identity and folder."""

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
DUE_AT_ONCE: Final = 1000
"""Put off publications of one partition in one transaction; a member's context is up to 50 kB."""
_SHED_LOOK_S: Final = 60.0


class ContextStage:
    """`data_dir` is the data folder of this machine; `slot` tells its workers apart, and two of the same slot end each
    other."""

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
        due_at_once = min(settings.batch_records, DUE_AT_ONCE)
        self._erase_within_s = kafka.erase_within_s
        rows = data_dir / ROWS_FOLDER / slot
        self._processor = ContextProcessor(kafka, rules, rows, due_at_once, now_us, beat=heartbeat.beat)
        self._loop = TransactionalLoop(
            kafka,
            self._processor,
            group=stages.CONTEXTS.group,
            topics=stages.CONTEXTS.topics,
            transactional_id=f"{STAGE}.{node_id(data_dir)}.{slot}",
            batch_records=lambda: settings.batch_records,
            interval_s=settings.interval_s,
            tracked=frozenset(CHANGELOGS),
            heartbeat=heartbeat,
        )

    def run(self, stop: threading.Event) -> None:
        """Returns after `stop`; raises StreamsError, and then the process must end and be started again."""
        with repeating(
            "taking erased rows out of their files", min(_SHED_LOOK_S, self._erase_within_s / 8), self._shed
        ):
            self._loop.run(stop)

    def _shed(self) -> None:
        self._processor.shed(self._erase_within_s / 2)
