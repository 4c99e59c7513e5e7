"""Writes embedding records to the cold tier and returns what became of each one. Never raises for a record.

Knows the tier and the records. Knows nothing of offsets, of groups, or of how long to wait before a retry.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgspec
import structlog
from confluent_kafka import Message
from msgspec import Struct

from indexer.errors import TierRefused, TierUnavailable
from indexer.freshness import FreshKind
from indexer.records import read_embedding
from indexer.tiers import ColdTier, IndexRecord
from schemas import topics, traces
from schemas.errors import BadRecord
from schemas.ids import Generation, Kind
from streams.kafka.crash_points import crash_point
from streams.kafka.records import offset_of, place_of

log = structlog.get_logger()


class RecordResult(NamedTuple):
    """`ok`: the record's effect is durable. `retry`: the infrastructure failed, so wait and process it again. `dead`:
    it can never succeed, and `cause` says why in one sentence."""

    status: Literal["ok", "retry", "dead"]
    cause: str = ""


class _Head(Struct):
    """Of an embedding. All else is skipped."""

    deleted: bool = False


_head: msgspec.msgpack.Decoder[_Head] = msgspec.msgpack.Decoder(_Head)

OK: Final = RecordResult("ok")
RETRY: Final = RecordResult("retry")

_Entry = tuple[int, IndexRecord]
"""A record with its number in the batch."""


class IndexRecords:
    def __init__(self, tier: ColdTier, generation: Generation) -> None:
        self._tier = tier
        self.posts_topic = topics.post_embeddings(generation)
        self._kinds: dict[str, Kind] = {
            self.posts_topic: "post",
            topics.member_embeddings(generation): "member",
        }

    @property
    def topics(self) -> list[str]:
        return list(self._kinds)

    def fresh_kind(self, message: Message) -> FreshKind:
        """Of a record that could be read."""
        is_deleted = _head.decode(message.value() or b"").deleted
        return "delete" if is_deleted else self._kinds[message.topic() or ""]

    def process(self, messages: Sequence[Message], *, again: bool = False) -> list[RecordResult]:
        """One result per message, in order. Those that are `ok` are durable in the tier when this returns. `again`: see
        `ColdTier.write`."""
        results = [OK] * len(messages)
        for kind, entries in self._decode(messages, results).items():
            self._write(kind, entries, results, again)
        crash_point("index.indexed")
        if OK in results and not self._flush():
            results = [RETRY if result is OK else result for result in results]
        for message, result in zip(messages, results, strict=True):
            if result is OK:
                traces.passed("index", message)
        crash_point("index.flushed")
        return results

    def _decode(self, messages: Sequence[Message], results: list[RecordResult]) -> dict[Kind, list[_Entry]]:
        """The records of each kind, in the order of the batch. A message that cannot be read becomes `dead` here."""
        entries: dict[Kind, list[_Entry]] = {"post": [], "member": []}
        for number, message in enumerate(messages):
            topic, partition = place_of(message)
            kind = self._kinds[topic]
            try:
                embedding = read_embedding(kind, message.value())
            except BadRecord as error:
                results[number] = RecordResult("dead", str(error))
            else:
                entries[kind].append((number, IndexRecord(embedding, partition, offset_of(message))))
        return entries

    def _write(self, kind: Kind, entries: list[_Entry], results: list[RecordResult], again: bool) -> None:
        """Halves a batch that the tier refuses, until the refused record is alone."""
        if not entries:
            return
        try:
            self._tier.write(kind, [record for _, record in entries], again=again)
        except TierUnavailable as error:
            log.warning("the cold tier cannot take records now", kind=kind, records=len(entries), error=str(error))
            for number, _ in entries:
                results[number] = RETRY
        except TierRefused as error:
            if len(entries) == 1:
                results[entries[0][0]] = RecordResult("dead", str(error))
                return
            half = len(entries) // 2
            self._write(kind, entries[:half], results, again)
            self._write(kind, entries[half:], results, again)

    def _flush(self) -> bool:
        try:
            self._tier.flush()
        except TierUnavailable as error:
            log.warning("the cold tier cannot flush now", error=str(error))
            return False
        return True
