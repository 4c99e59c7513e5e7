"""Encodes contexts again that an operator has asked for, while there are no new ones. `nearline replay encode` asks.

Embeddings of a key must lie in their topic in the order of their revisions, because compaction keeps the last one. The
loop that owns a partition of the contexts writes all embeddings of its keys, so it knows what it has written. A context
is encoded again only if it is still the newest one of its key that has been encoded:

    offset of the context              what happens
    not encoded yet                    nothing: it will be encoded as every context, after this
    a newer one of its key is encoded  nothing: the newer one counts
    else                               it is encoded, and lies behind the embedding that it replaces

Knows nothing of transactions and groups.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from confluent_kafka import Message

from schemas.ids import Offset
from streams.encode.context_records import ContextRecords, dead_letter
from streams.encode.live_first import LiveFirst
from streams.encode.newest_keys import NewestKeys
from streams.kafka.lookup import RecordLookup
from streams.kafka.processor import Processed
from streams.kafka.records import Place
from streams.kafka.replays import Keys, find_records, take_batch

REPLAY_TURN_S: Final = 0.25
"""How long contexts that are encoded again may keep the device: a new one may have to wait for so long."""


class EncodeReplays:
    """The background of one loop, whose thread owns it."""

    def __init__(
        self,
        request_topic: str,
        context_topic: str,
        contexts: ContextRecords,
        live_first: LiveFirst,
        lookup: RecordLookup,
        *,
        batch_records: int,
    ) -> None:
        self.topic = request_topic
        self._record_topics = {request_topic: context_topic}
        self._contexts = contexts
        self._live_first = live_first
        self._lookup = lookup
        self._batch_records = batch_records
        self._newest_keys = NewestKeys(lookup)

    def batch_records(self) -> int:
        """One turn, at most."""
        return min(self._batch_records, self._contexts.turn_contexts)

    def rest(self) -> None:
        self._newest_keys.forget()

    def close(self) -> None:
        self._lookup.close()

    def process(
        self, requests: Sequence[Message], committed_offsets: Mapping[Place, Offset | None]
    ) -> Processed | None:
        if self._live_first.has_records():
            return None
        batch = take_batch(requests, self._record_topics)
        contexts: list[Message] = []
        for place, keys in batch.keys.items():
            if place not in committed_offsets:
                # While workers of an earlier version, which know no requests, are in the group.
                return None
            encoded_until = committed_offsets[place] or Offset(0)
            if not self._newest_keys.reach(place, batch.ends[place], encoded_until):
                return None
            contexts += find_records(self._lookup, place, self._newest(place, keys, encoded_until))
        letters = [dead_letter(message, cause) for message, cause in batch.dead]
        return Processed([*letters, *self._contexts.encode(contexts, with_origins=False)], len(batch.requests))

    def _newest(self, place: Place, keys: Keys, encoded_until: Offset) -> Keys:
        """Those that are the newest ones of their keys that have been encoded."""
        return {
            offset: key
            for offset, key in keys.items()
            if offset < encoded_until and self._newest_keys.newest(place, key) <= offset
        }
