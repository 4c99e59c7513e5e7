"""The dead letters as an operator sees them: read, and sent back.

Owns what "sent back" means for a record of each topic. Knows nothing of why a stage gave up but the letter's words.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from confluent_kafka import Consumer, Message

from schemas import topics
from schemas.dead_letters import DeadLetterCause, Headers, from_headers, without_cause
from schemas.headers import headers_of
from schemas.ids import Millis, Offset, Partition
from streams.errors import KafkaRefused, NoSuchDeadLetter
from streams.lag import OffsetReader, Offsets
from streams.records import Output, Place
from streams.republish import republish_record, send_all
from streams.scan import scan, scan_topic, scanner
from streams.settings import KafkaSettings

_SENT_BACK_AS_THEY_ARE: Final = frozenset((*topics.INPUTS, *topics.HOPS, topics.REPUBLISH))
"""What only the context stage reads. A record of a later topic may be older than what is there now, so its entity is
published again instead."""


class DeadLetterId(NamedTuple):
    """The letter's own place in the topic of dead letters, written `partition:offset`."""

    partition: Partition
    offset: Offset

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


class DeadLetter(NamedTuple):
    """`headers` are the record's own, without the cause."""

    id: DeadLetterId
    died_ms: Millis
    cause: DeadLetterCause
    key: bytes | None
    value: bytes | None
    headers: Headers


def parse_id(text: str) -> DeadLetterId:
    """Raises NoSuchDeadLetter."""
    partition, colon, offset = text.partition(":")
    if not (colon and partition.isascii() and partition.isdigit() and offset.isascii() and offset.isdigit()):
        raise NoSuchDeadLetter(f"{text!r} is no id of a dead letter; take one from: nearline dead-letters list")
    return DeadLetterId(Partition(int(partition)), Offset(int(offset)))


def count(kafka: KafkaSettings, reader: OffsetReader, exact_up_to: int = 5_000) -> int:
    """Letters in the topic. Above `exact_up_to` by offsets alone, control records of transactions included."""
    starts, ends = _stretches(reader)
    estimate = sum(ends[place] - starts[place] for place in ends)
    return estimate if not 0 < estimate <= exact_up_to else sum(1 for _ in letters(kafka, reader))


def letters(kafka: KafkaSettings, reader: OffsetReader) -> Iterator[DeadLetter]:
    """All that are kept, by partition and offset. Raises StreamsError."""
    return map(_letter, scan_topic(kafka, reader, topics.DEAD_LETTERS))


def chosen(kafka: KafkaSettings, reader: OffsetReader, ids: Iterable[DeadLetterId]) -> list[DeadLetter]:
    """In the order asked. Raises NoSuchDeadLetter, StreamsError."""
    starts, ends = _stretches(reader)
    consumer = scanner(kafka)
    try:
        return [_one(consumer, starts, ends, wanted) for wanted in ids]
    finally:
        consumer.close()


def send_back(kafka: KafkaSettings, found: Iterable[DeadLetter]) -> int:
    """Returns how many were sent. The letters stay: sent back twice is sent twice. Raises StreamsError."""
    return send_all(kafka, map(way_back, found))


def way_back(letter: DeadLetter) -> Output:
    """The record that gives this letter another chance. Raises KafkaRefused where nothing can."""
    if letter.cause.topic in _SENT_BACK_AS_THEY_ARE:
        return Output(letter.cause.topic, letter.key, letter.value, letter.headers)
    if letter.key is None:
        raise KafkaRefused(f"the dead letter {letter.id} has no key, so nothing can be published again for it")
    return republish_record(letter.key)


def _one(consumer: Consumer, starts: Offsets, ends: Offsets, wanted: DeadLetterId) -> DeadLetter:
    place = Place(topics.DEAD_LETTERS, wanted.partition)
    if starts.get(place, wanted.offset + 1) <= wanted.offset < ends.get(place, 0):
        for message in scan(consumer, place, wanted.offset, Offset(wanted.offset + 1)):
            return _letter(message)
    raise NoSuchDeadLetter(f"there is no dead letter {wanted}; see: nearline dead-letters list")


def _stretches(reader: OffsetReader) -> tuple[Offsets, Offsets]:
    places = reader.places([topics.DEAD_LETTERS])
    return reader.starts(places), reader.ends(places)


def _letter(message: Message) -> DeadLetter:
    headers = [(name, value) for name, value in headers_of(message) if isinstance(value, bytes)]
    return DeadLetter(
        DeadLetterId(Partition(message.partition() or 0), Offset(message.offset() or 0)),
        Millis(message.timestamp()[1]),
        from_headers(headers),
        message.key(),
        message.value(),
        without_cause(headers),
    )
