"""Reads single records, and short stretches of a partition, for a stage that knows their offsets.

Gives committed records only. Knows no stage's work.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from confluent_kafka import Consumer, Message

from schemas.ids import Offset
from streams.kafka.clients import new_consumer
from streams.kafka.reading import scan
from streams.kafka.records import Place, offset_of
from streams.settings import KafkaSettings

JUMP: Final = 2000
"""So many offsets between two records are better jumped over than read: a jump costs an answer of the broker."""
_QUIET_S: Final = 30.0
"""How long the broker may send nothing."""
_QUEUE_KBYTES: Final = 2048
"""What is fetched ahead of the last record is thrown away."""
_FETCH_BYTES: Final = 256 * 1024


class RecordLookup:
    """Used by one thread. Connects when it is first asked."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._consumer: Consumer | None = None

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
        self._consumer = None

    def records(self, place: Place, offsets: Iterable[Offset]) -> Iterator[Message]:
        """The records at these offsets, in their order. Those that compaction has removed are left out. All of them
        must be readable by now: no open transaction may hold them back. Raises StreamsError."""
        for run in _runs(sorted(offsets)):
            wanted = set(run)
            for record in self.stretch(place, run[0], Offset(run[-1] + 1)):
                if offset_of(record) in wanted:
                    yield record

    def stretch(self, place: Place, first: Offset, end: Offset) -> Iterator[Message]:
        """The records in [first, end), which must be readable by now too. Raises StreamsError."""
        if self._consumer is None:
            overrides = {
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
                "fetch.message.max.bytes": _FETCH_BYTES,
                "queued.max.messages.kbytes": _QUEUE_KBYTES,
            }
            self._consumer = new_consumer(self._kafka, "nearline-lookup", **overrides)
        return scan(self._consumer, place, first, end, to_the_end_s=_QUIET_S)


def _runs(offsets: Sequence[Offset]) -> Iterator[list[Offset]]:
    """Cuts sorted offsets where the distance is so long that the records in between are better jumped over."""
    run: list[Offset] = []
    for offset in offsets:
        if run and offset - run[-1] >= JUMP:
            yield run
            run = []
        run.append(offset)
    if run:
        yield run
