"""Counts the dead letters that nobody has replayed or dropped, by stage and kind. Reads on from where it stopped, so
that it can be asked again and again.

What `dead_letter_box.py` says once, with all that a letter holds, is counted here all the time, from headers alone.
"""

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from typing import Final, NamedTuple

from confluent_kafka import Message

from schemas import topics
from schemas.dead_letters import DeadLetterId, DeadLetterKind, Headers, from_headers, read_kind, read_mark
from schemas.headers import headers_of
from schemas.ids import Offset, Partition
from streams.errors import KafkaUnavailable
from streams.kafka.offsets import OffsetReader
from streams.kafka.reading import scan, scanner
from streams.kafka.records import Place, offset_of
from streams.settings import KafkaSettings

_STAGES: Final = frozenset(("contexts", "encode", "index"))
_OTHER: Final = "other"
_MOST: Final = 200_000
"""Letters that are known one by one, in some 30 MB. Later ones are not counted until these have gone."""


class LetterClass(NamedTuple):
    stage: str
    """Of a letter that another program wrote: `other`."""
    kind: DeadLetterKind


def class_of(headers: Headers) -> LetterClass:
    """Of a letter with these headers."""
    stage = from_headers(headers).stage
    return LetterClass(stage if stage in _STAGES else _OTHER, read_kind(headers))


class DeadLetterCounts:
    """One thread calls `read_on`; any thread may read `counts`."""

    def __init__(self, kafka: KafkaSettings, reader: OffsetReader) -> None:
        self._kafka = kafka
        self._reader = reader
        self._letters: dict[DeadLetterId, LetterClass] = {}
        self._next: dict[Place, Offset] = {}
        self._read_to: dict[Place, Offset] = {}
        """The end of each partition when it was read to there. What is left before it are marks of transactions."""
        self.counts: Mapping[LetterClass, int] = {}
        """Replaced as a whole."""

    def read_on(self, within_s: float) -> None:
        """Takes what has come since the last call, as far as the time allows; the next call goes on. Raises
        StreamsError."""
        deadline = time.monotonic() + within_s
        starts, ends = self._reader.bounds([topics.DEAD_LETTERS])
        self._forget_deleted(starts)
        grown = [place for place, end in ends.items() if self._read_to.get(place, Offset(0)) != end]
        if grown:
            self._read(grown, starts, ends, deadline)
        self.counts = Counter(self._letters.values())

    def _read(
        self, places: list[Place], starts: Mapping[Place, Offset], ends: Mapping[Place, Offset], deadline: float
    ) -> None:
        with closing(scanner(self._kafka)) as consumer:
            for place in places:
                if ends[place] < self._next.get(place, Offset(0)):
                    self._forget(place)  # the topic was made anew
                first = max(starts[place], self._next.get(place, Offset(0)))
                try:
                    for message in scan(consumer, place, first, ends[place], deadline=deadline):
                        self._take(message)
                        self._next[place] = Offset(offset_of(message) + 1)
                except KafkaUnavailable:
                    if time.monotonic() < deadline:
                        raise
                    return
                self._read_to[place] = ends[place]

    def _take(self, message: Message) -> None:
        headers = [(name, value) for name, value in headers_of(message) if isinstance(value, bytes)]
        partition, mark = Partition(message.partition() or 0), read_mark(message.key(), headers)
        if mark is None:
            if len(self._letters) < _MOST:
                self._letters[DeadLetterId(partition, offset_of(message))] = class_of(headers)
        elif mark.letter is not None and mark.letter.partition == partition:
            self._letters.pop(mark.letter, None)

    def _forget_deleted(self, starts: Mapping[Place, Offset]) -> None:
        """Those that retention or an operator has deleted."""
        first = {place.partition: start for place, start in starts.items()}
        gone = [letter for letter in self._letters if letter.offset < first.get(letter.partition, Offset(0))]
        for letter in gone:
            del self._letters[letter]

    def _forget(self, place: Place) -> None:
        self._next.pop(place, None)
        self._letters = {letter: of for letter, of in self._letters.items() if letter.partition != place.partition}
