"""Reads the embeddings that an operator has asked to write again. `nearline replay index` asks.

Any order is right here, because the tier knows which record is newer. Knows neither the tier nor the consumer group.
"""

from collections.abc import Sequence
from typing import NamedTuple

from confluent_kafka import Message

from schemas import topics
from schemas.ids import KINDS, Generation
from streams.kafka.lookup import RecordLookup
from streams.kafka.replays import find_records, take_batch
from streams.kafka.request_reader import RequestReader
from streams.settings import KafkaSettings


class ReplayedBatch(NamedTuple):
    requests: Sequence[Message]
    records: list[Message]
    """What they name, as far as compaction has not removed it: then there is a newer record, which is written as every
    record."""
    dead: list[tuple[Message, str]]
    """Requests that cannot be read, each with the cause."""


class IndexReplays:
    """The loop's thread owns it. Connects when `requests` is first given a partition."""

    def __init__(self, kafka: KafkaSettings, generation: Generation) -> None:
        self._record_topics = {
            topics.replay_requests("index", kind, generation): topics.embeddings(kind, generation) for kind in KINDS
        }
        self.topics = frozenset(self._record_topics)
        """Of the requests."""
        self.requests = RequestReader(kafka)
        self._lookup = RecordLookup(kafka)

    def close(self) -> None:
        self.requests.close()
        self._lookup.close()

    def read(self, max_requests: int) -> ReplayedBatch | None:
        """None if nothing is asked for. Raises StreamsError."""
        requests = self.requests.peek(max_requests)
        if not requests:
            return None
        batch = take_batch(requests, self._record_topics)
        records = [record for place, keys in batch.keys.items() for record in find_records(self._lookup, place, keys)]
        return ReplayedBatch(batch.requests, records, batch.dead)
