"""The dead letters as an operator sees them: those that nobody has replayed or dropped.

A letter that was replayed or dropped stays in its partition and is followed by a mark. So each partition is read twice,
first for its marks and then for its letters: the marks come after the letters, and letters may be too large to be held
in memory. Replaying them is in `dead_letter_replay.py`. Knows nothing of why a stage gave up except what the letter
says.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Final, NamedTuple

from confluent_kafka import Consumer, Message

from schemas import dead_letters, topics
from schemas.dead_letters import (
    DeadLetterCause,
    DeadLetterId,
    Fate,
    Headers,
    Mark,
    from_headers,
    read_mark,
    without_cause,
)
from schemas.headers import headers_of
from schemas.ids import Millis, Offset, Partition
from streams.errors import KafkaUnavailable, NoSuchDeadLetter
from streams.kafka.offsets import OffsetReader, Offsets
from streams.kafka.reading import scan, scan_all, scanner
from streams.kafka.records import Place, offset_of
from streams.operate.dead_letter_counts import LetterClass, class_of
from streams.settings import KafkaSettings

_COUNT_S: Final = 1.0
_MOST_COUNTED_A_SECOND: Final = 200_000
"""Offsets. Reading is never faster."""

_Marked = dict[DeadLetterId, Fate]
"""What became of the letters that are marked."""


class DeadLetter(NamedTuple):
    """`headers` are the record's own, without the cause."""

    id: DeadLetterId
    died_ms: Millis
    cause: DeadLetterCause
    key: bytes | None
    value: bytes | None
    headers: Headers
    letter_class: LetterClass = LetterClass("other", "unknown")


class Selection(NamedTuple):
    """Selects the letters that fulfil every condition that is not None."""

    ids: tuple[DeadLetterId, ...] | None = None
    cause: str | None = None
    """A part of the cause's sentence."""
    before_ms: Millis | None = None
    letter_class: LetterClass | None = None

    def includes(self, letter: DeadLetter) -> bool:
        """By cause, age and class. Letters are looked up by their ids, not filtered."""
        return (
            (self.cause is None or self.cause in letter.cause.cause)
            and (self.before_ms is None or letter.died_ms < self.before_ms)
            and (self.letter_class is None or self.letter_class == letter.letter_class)
        )


ALL: Final = Selection()


class LetterCount(NamedTuple):
    """If it is not exact, it is an upper bound."""

    number: int
    exact: bool


def parse_id(text: str) -> DeadLetterId:
    """Raises NoSuchDeadLetter."""
    letter_id = dead_letters.parse_id(text)
    if letter_id is None:
        raise NoSuchDeadLetter(f"{text!r} is no id of a dead letter; take one from: nearline dead-letters list")
    return letter_id


def count(kafka: KafkaSettings, reader: OffsetReader, within_s: float = _COUNT_S) -> LetterCount:
    """The number of unmarked letters. If they cannot be read within `within_s`, the number of offsets, which also
    counts marks and the control records of transactions. Raises StreamsError."""
    deadline = time.monotonic() + within_s
    starts, ends = reader.bounds([topics.DEAD_LETTERS])
    at_most = LetterCount(sum(ends[place] - starts[place] for place in ends), exact=False)
    if at_most.number > _MOST_COUNTED_A_SECOND * within_s:
        return at_most
    # `clear` may delete letters meanwhile and leave their marks, so the marks are not simply subtracted.
    letter_ids: set[DeadLetterId] = set()
    marked_ids: set[DeadLetterId] = set()
    with closing(scanner(kafka)) as consumer:
        try:
            for message in scan_all(consumer, starts, ends, deadline=deadline):
                mark = _mark(message)
                if mark is None:
                    letter_ids.add(_id(message))
                elif mark.letter is not None:
                    marked_ids.add(mark.letter)
        except KafkaUnavailable:
            if time.monotonic() < deadline:
                raise
            return at_most
    return LetterCount(len(letter_ids - marked_ids), exact=True)


def letters(
    kafka: KafkaSettings, reader: OffsetReader, selection: Selection = ALL, *, to_the_end_s: float | None = None
) -> Iterator[DeadLetter]:
    """The selected letters that are unmarked, by partition and offset. `to_the_end_s`: see `scan`. Raises
    NoSuchDeadLetter for an id that is not there, before it yields any letter; StreamsError."""
    starts, ends = reader.bounds([topics.DEAD_LETTERS])
    with closing(scanner(kafka)) as consumer:
        marked = _read_marks(scan_all(consumer, starts, ends, to_the_end_s=to_the_end_s))
        if selection.ids is None:
            unmarked = _unmarked(scan_all(consumer, starts, ends, to_the_end_s=to_the_end_s), marked)
        else:
            ids = dict.fromkeys(selection.ids)
            unmarked = iter([_find(consumer, starts, ends, marked, letter_id) for letter_id in ids])
        yield from filter(selection.includes, unmarked)


def first_unmarked(kafka: KafkaSettings, reader: OffsetReader, to_the_end_s: float) -> Offsets:
    """For each partition the offset of its first unmarked letter; its end if there is none. Raises StreamsError."""
    starts, ends = reader.bounds([topics.DEAD_LETTERS])
    offsets = dict(ends)
    with closing(scanner(kafka)) as consumer:
        marked = _read_marks(scan_all(consumer, starts, ends, to_the_end_s=to_the_end_s))
        for place, end in ends.items():
            messages = scan(consumer, place, starts[place], end, to_the_end_s=to_the_end_s)
            if (letter := next(_unmarked(messages, marked), None)) is not None:
                offsets[place] = letter.id.offset
    return offsets


def _read_marks(messages: Iterator[Message]) -> _Marked:
    marks = (mark for message in messages if (mark := _mark(message)) is not None)
    return {mark.letter: mark.fate for mark in marks if mark.letter is not None}


def _unmarked(messages: Iterator[Message], marked: _Marked) -> Iterator[DeadLetter]:
    return (_letter(message) for message in messages if _mark(message) is None and _id(message) not in marked)


def _find(consumer: Consumer, starts: Offsets, ends: Offsets, marked: _Marked, letter_id: DeadLetterId) -> DeadLetter:
    if (fate := marked.get(letter_id)) is not None:
        raise NoSuchDeadLetter(f"the dead letter {letter_id} is {fate} already; see: nearline dead-letters list")
    place, offset = Place(topics.DEAD_LETTERS, letter_id.partition), letter_id.offset
    if starts.get(place, offset + 1) <= offset < ends.get(place, 0):
        for message in scan(consumer, place, offset, Offset(offset + 1)):
            if _mark(message) is None:
                return _letter(message)
    raise NoSuchDeadLetter(f"there is no dead letter {letter_id}; see: nearline dead-letters list")


def _id(message: Message) -> DeadLetterId:
    return DeadLetterId(Partition(message.partition() or 0), offset_of(message))


def _headers(message: Message) -> Headers:
    return [(name, value) for name, value in headers_of(message) if isinstance(value, bytes)]


def _mark(message: Message) -> Mark | None:
    """None for a letter. A mark counts only in the partition of its letter; elsewhere it marks nothing."""
    mark = read_mark(message.key(), _headers(message))
    if mark is not None and mark.letter is not None and mark.letter.partition != message.partition():
        return mark._replace(letter=None)
    return mark


def _letter(message: Message) -> DeadLetter:
    headers = _headers(message)
    return DeadLetter(
        _id(message),
        Millis(message.timestamp()[1]),
        from_headers(headers),
        message.key(),
        message.value(),
        without_cause(headers),
        class_of(headers),
    )
