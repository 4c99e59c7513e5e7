"""Writes embedding records to the cold tier and says of each one what became of it. Never raises for a record.

Knows the tier and the records; knows neither offsets, nor groups, nor how long to wait.
"""

from collections.abc import Sequence

import structlog
from confluent_kafka import Message

from indexer.errors import TierRefused, TierUnavailable
from indexer.records import read_embedding
from indexer.tiers import ColdTier, IndexRecord
from schemas import topics
from schemas.errors import BadRecord
from schemas.ids import Generation, Kind, Offset, Partition
from streams.index.verdicts import OK, RETRY, Verdict, dead
from streams.kafka.crash_points import point

log = structlog.get_logger()

_Entry = tuple[int, IndexRecord]
"""A record with its place in the batch."""


class IndexRecords:
    def __init__(self, tier: ColdTier, generation: Generation) -> None:
        self._tier = tier
        self._kinds: dict[str, Kind] = {
            topics.post_embeddings(generation): "post",
            topics.member_embeddings(generation): "member",
        }

    @property
    def topics(self) -> list[str]:
        return list(self._kinds)

    def process(self, messages: Sequence[Message]) -> list[Verdict]:
        """One verdict per message, in order. Those that are `ok` are durable in the tier when this returns."""
        verdicts = [OK] * len(messages)
        for kind, entries in self._read(messages, verdicts).items():
            self._write(kind, entries, verdicts)
        point("index.indexed")
        if OK in verdicts and not self._flush():
            verdicts = [RETRY if verdict is OK else verdict for verdict in verdicts]
        point("index.flushed")
        return verdicts

    def _read(self, messages: Sequence[Message], verdicts: list[Verdict]) -> dict[Kind, list[_Entry]]:
        """Per kind, in the order of the batch; what cannot be read gets its verdict here."""
        found: dict[Kind, list[_Entry]] = {"post": [], "member": []}
        for place, message in enumerate(messages):
            kind = self._kinds[str(message.topic())]
            try:
                embedding = read_embedding(kind, message.value())
            except BadRecord as error:
                verdicts[place] = dead(str(error))
            else:
                record = IndexRecord(
                    embedding, Partition(int(message.partition() or 0)), Offset(int(message.offset() or 0))
                )
                found[kind].append((place, record))
        return found

    def _write(self, kind: Kind, entries: list[_Entry], verdicts: list[Verdict]) -> None:
        """A batch that the tier refuses is halved until the record that it refuses stands alone."""
        if not entries:
            return
        try:
            self._tier.write(kind, [record for _, record in entries])
        except TierUnavailable as error:
            log.warning("the cold tier cannot take records now", kind=kind, records=len(entries), error=str(error))
            for place, _ in entries:
                verdicts[place] = RETRY
        except TierRefused as error:
            if len(entries) == 1:
                verdicts[entries[0][0]] = dead(str(error))
                return
            half = len(entries) // 2
            self._write(kind, entries[:half], verdicts)
            self._write(kind, entries[half:], verdicts)

    def _flush(self) -> bool:
        try:
            self._tier.flush()
        except TierUnavailable as error:
            log.warning("the cold tier cannot flush now", error=str(error))
            return False
        return True
