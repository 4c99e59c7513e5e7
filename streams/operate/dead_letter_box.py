"""The dead letters as an operator sees them: those that nobody has sent back or dropped.

Owns which letters are left, and which of them somebody means. Knows nothing of why a stage gave up but the letter's
words. A partition is read twice: the marks stand behind their letters, and the letters may be large.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Final, NamedTuple

from confluent_kafka import Consumer, Message

from schemas import dead_letters, topics
from schemas.dead_letters import DeadLetterCause, DeadLetterId, Fate, Headers, from_headers, read_mark, without_cause
from schemas.headers import headers_of
from schemas.ids import Millis, Offset, Partition
from streams.errors import KafkaUnavailable, NoSuchDeadLetter
from streams.kafka.offsets import OffsetReader, Offsets
from streams.kafka.reading import scan, scanner
from streams.kafka.records import Place, offset_of
from streams.settings import KafkaSettings

_COUNT_S: Final = 1.0
_MOST_COUNTED_A_SECOND: Final = 200_000
"""Offsets. Nobody reads more."""

_Marked = dict[Offset, Fate]
"""Of one partition: what became of which letter."""


class DeadLetter(NamedTuple):
    """`headers` are the record's own, without the cause."""

    id: DeadLetterId
    died_ms: Millis
    cause: DeadLetterCause
    key: bytes | None
    value: bytes | None
    headers: Headers


class Selection(NamedTuple):
    """Which letters somebody means: all that fulfil every condition that is not None."""

    ids: tuple[DeadLetterId, ...] | None = None
    cause: str | None = None
    """A part of the cause's sentence."""
    before_ms: Millis | None = None


ALL: Final = Selection()


class LetterCount(NamedTuple):
    """Where it is not exact, there are at most so many."""

    number: int
    exact: bool


def parse_id(text: str) -> DeadLetterId:
    """Raises NoSuchDeadLetter."""
    found = dead_letters.parse_id(text)
    if found is None:
        raise NoSuchDeadLetter(f"{text!r} is no id of a dead letter; take one from: nearline dead-letters list")
    return found


def count(kafka: KafkaSettings, reader: OffsetReader, within_s: float = _COUNT_S) -> LetterCount:
    """Letters that are left. By offsets alone where that takes longer, or would for certain: marks, and the control
    records of transactions, are counted then. Raises StreamsError."""
    deadline = time.monotonic() + within_s
    starts, ends = _stretches(reader)
    at_most = LetterCount(sum(ends[place] - starts[place] for place in ends), exact=False)
    if at_most.number > _MOST_COUNTED_A_SECOND * within_s:
        return at_most
    with closing(scanner(kafka)) as consumer:
        try:
            numbers = [_count_left(consumer, place, starts[place], ends[place], deadline) for place in ends]
        except KafkaUnavailable:
            if time.monotonic() < deadline:
                raise
            return at_most
    return LetterCount(sum(numbers), exact=True)


def _count_left(consumer: Consumer, place: Place, start: Offset, end: Offset, deadline: float) -> int:
    """Only letters that are seen count: `clear` may delete some meanwhile, and leaves their marks. Raises
    KafkaUnavailable at the deadline."""
    seen: set[Offset] = set()
    marked: set[Offset] = set()
    for message in scan(consumer, place, start, end, deadline=deadline):
        mark = _mark(message)
        if mark is None:
            seen.add(offset_of(message))
        else:
            marked.add(mark[0])
    return len(seen - marked)


def letters(
    kafka: KafkaSettings, reader: OffsetReader, wanted: Selection = ALL, *, to_the_end_s: float | None = None
) -> Iterator[DeadLetter]:
    """Those that are left, by partition and offset. `to_the_end_s`: see `scan`. Raises NoSuchDeadLetter for an id that
    is not there, before any letter comes; StreamsError."""
    starts, ends = _stretches(reader)
    with closing(scanner(kafka)) as consumer:
        marked = {place: _marked(consumer, place, starts[place], ends[place], to_the_end_s) for place in ends}
        if wanted.ids is not None:
            chosen = [_one(consumer, starts, ends, marked, one) for one in dict.fromkeys(wanted.ids)]
            yield from (letter for letter in chosen if _is_meant(letter, wanted))
            return
        for place in ends:
            messages = scan(consumer, place, starts[place], ends[place], to_the_end_s=to_the_end_s)
            for letter in _left(messages, marked[place]):
                if _is_meant(letter, wanted):
                    yield letter


def first_left(kafka: KafkaSettings, reader: OffsetReader, to_the_end_s: float) -> Offsets:
    """For each partition the offset before which no letter is left. Raises StreamsError."""
    starts, ends = _stretches(reader)
    with closing(scanner(kafka)) as consumer:
        found = {}
        for place in ends:
            marked = _marked(consumer, place, starts[place], ends[place], to_the_end_s)
            messages = scan(consumer, place, starts[place], ends[place], to_the_end_s=to_the_end_s)
            first = next(_left(messages, marked), None)
            found[place] = ends[place] if first is None else first.id.offset
        return found


def _is_meant(letter: DeadLetter, wanted: Selection) -> bool:
    return (wanted.cause is None or wanted.cause in letter.cause.cause) and (
        wanted.before_ms is None or letter.died_ms < wanted.before_ms
    )


def _marked(consumer: Consumer, place: Place, start: Offset, end: Offset, to_the_end_s: float | None) -> _Marked:
    messages = scan(consumer, place, start, end, to_the_end_s=to_the_end_s)
    return dict(mark for message in messages if (mark := _mark(message)) is not None)


def _left(messages: Iterator[Message], marked: _Marked) -> Iterator[DeadLetter]:
    for message in messages:
        if _mark(message) is None and offset_of(message) not in marked:
            yield _letter(message)


def _one(
    consumer: Consumer, starts: Offsets, ends: Offsets, marked: dict[Place, _Marked], wanted: DeadLetterId
) -> DeadLetter:
    place = Place(topics.DEAD_LETTERS, wanted.partition)
    if (fate := marked.get(place, {}).get(wanted.offset)) is not None:
        raise NoSuchDeadLetter(f"the dead letter {wanted} is {fate} already; see: nearline dead-letters list")
    if starts.get(place, wanted.offset + 1) <= wanted.offset < ends.get(place, 0):
        for message in scan(consumer, place, wanted.offset, Offset(wanted.offset + 1)):
            if _mark(message) is None:
                return _letter(message)
    raise NoSuchDeadLetter(f"there is no dead letter {wanted}; see: nearline dead-letters list")


def _stretches(reader: OffsetReader) -> tuple[Offsets, Offsets]:
    places = reader.places([topics.DEAD_LETTERS])
    return reader.starts(places), reader.ends(places)


def _headers(message: Message) -> Headers:
    return [(name, value) for name, value in headers_of(message) if isinstance(value, bytes)]


def _mark(message: Message) -> tuple[Offset, Fate] | None:
    """None for a letter. The offset is -1 for a mark of nothing."""
    mark = read_mark(message.key(), _headers(message))
    if mark is None:
        return None
    own = mark.letter is not None and mark.letter.partition == message.partition()
    return (mark.letter.offset if own and mark.letter is not None else Offset(-1)), mark.fate


def _letter(message: Message) -> DeadLetter:
    headers = _headers(message)
    return DeadLetter(
        DeadLetterId(Partition(message.partition() or 0), offset_of(message)),
        Millis(message.timestamp()[1]),
        from_headers(headers),
        message.key(),
        message.value(),
        without_cause(headers),
    )
