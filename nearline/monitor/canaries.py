"""Sends a post in at one end and looks for it at the other, deletes it, and looks again: what members would notice of
the whole pipeline, in seconds.

One canary is under way at a time, and is looked for in every generation that can be asked. Nothing is remembered over a
restart: what a killed monitor has left is found where canaries are looked for, and is deleted then. Knows neither Kafka
nor HTTP.

    outcome
    passed     found in time, and gone in time
    lost       not found in whole answers, although every stage on its way has read what came with it
    stayed     still found after its deletion, likewise
    late       neither in time, but older records wait on its way, or answers say themselves that they are partial
    unknown    there was no answer, or the generation has gone meanwhile
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol

import msgspec
import structlog

from retriever.errors import RetrieverError
from schemas.canaries import CANARY_AUTHOR
from schemas.events import PostCreated, PostDeleted
from schemas.ids import Generation, Micros, Partition, PostId
from schemas.times import EPOCH, MICROSECOND, now_us, to_rfc3339
from streams.errors import StreamsError

LOST_S: Final = 60.0
"""A canary that is not there by then is given up: fresh posts are to be searchable within a minute."""
LOOK_EVERY_S: Final = 0.25
"""While one is under way."""
FOREIGN_S: Final = 600.0
"""A canary of another monitor that is older than this was left by one that is gone."""

Step = Literal["searchable", "gone"]
Outcome = Literal["passed", "lost", "stayed", "late", "unknown"]

log = structlog.get_logger(__name__)


class Found(NamedTuple):
    """All canaries that one generation gives as an answer now. `is_whole`: what is not among them is not there."""

    created_at_us: Mapping[str, Micros]
    is_whole: bool


class Ends(Protocol):
    """The two ends of the pipeline. One thread calls the methods, which may block for seconds."""

    def send(self, post_id: PostId, event: bytes) -> None:
        """Into the topic `posts`. Raises StreamsError if it is not known to be there."""
        ...

    def find(self, generation: Generation) -> Found:
        """Raises RetrieverError if the generation does not answer."""
        ...


class Observer(Protocol):
    """Is told what was seen. Does not block."""

    def saw(self, generation: Generation, step: Step, seconds: float) -> None: ...

    def ended(self, generation: Generation, outcome: Outcome) -> None: ...

    def asked(self, generations: Sequence[Generation]) -> None:
        """Those that are looked at now. What was seen of others is out of date."""
        ...


class CanaryTrouble(NamedTuple):
    """The newest canary of a generation was lost, or stayed. `since_s` by the monitor's clock: when the first of those
    that failed in a row was sent."""

    generation: Generation
    outcome: Outcome
    post_id: PostId
    since_s: float


BehindS = Callable[[Generation, Partition], float]
"""For how long records have waited on a canary's way, all stages together, in the partition in which it travels."""


@dataclass(slots=True)
class _Canary:
    post_id: PostId
    partition: Partition
    created_at_us: Micros
    began_s: float
    sent_s: float
    """When the event of this step was sent."""
    step: Step
    waiting: set[Generation]
    """Those in which this step has not ended."""
    outcomes: dict[Generation, Outcome]
    """Of all that are looked at: passed, unless something else is known."""


class Canaries:
    """Call `step` again and again, from one thread. Any thread may read `troubles`."""

    def __init__(
        self,
        ends: Ends,
        observer: Observer,
        ids: Sequence[tuple[PostId, Partition]],
        live: Callable[[], Sequence[Generation]],
        behind_s: BehindS,
        *,
        every_s: float,
        clock: Callable[[], float] = time.monotonic,
        wall_us: Callable[[], Micros] = now_us,
    ) -> None:
        """`ids`: of this monitor's canaries, which are used in turn, and the partition of each. `live`: the generations
        that may answer."""
        self._ends, self._observer = ends, observer
        self._ids, self._own = ids, {post_id for post_id, _ in ids}
        self._live, self._behind_s = live, behind_s
        self._every_s, self._clock, self._wall_us = every_s, clock, wall_us
        self._next_id = 0
        self._next_s = clock()
        self._last_us = Micros(0)
        self._canary: _Canary | None = None
        self._fails = False
        self._able_at_s = clock()
        """When a generation could last say what is there, or this began."""
        self._why_unable = ""
        self._is_unable = False
        self.troubles: Mapping[Generation, CanaryTrouble] = {}

    @property
    def is_under_way(self) -> bool:
        return self._canary is not None

    def step(self) -> None:
        """Begins a canary if it is time, or looks for the one that is under way."""
        canary = self._canary
        if canary is not None:
            self._look(canary)
        elif self._clock() >= self._next_s:
            self._next_s = self._clock() + self._every_s
            self._begin()

    def _begin(self) -> None:
        """1. Delete what was left. 2. Send the next one, unless nobody could say whether it is there."""
        live = self._live()
        self._observer.asked(live)
        self.troubles = {generation: trouble for generation, trouble in self.troubles.items() if generation in live}
        found = {generation: answer for generation in live if (answer := self._find(generation)) is not None}
        able = {generation for generation, answer in found.items() if answer.is_whole}
        began_s, (post_id, partition) = self._clock(), self._ids[self._next_id]
        try:
            self._delete_leftovers(list(found.values()))
            self._note_whether(bool(able) or not live)
            if not able:
                return
            at_us = self._later_us()
            self._ends.send(post_id, _created(post_id, at_us))
        except StreamsError as error:
            self._complain(error)
            return
        self._fails = False
        self._next_id = (self._next_id + 1) % len(self._ids)
        outcomes: dict[Generation, Outcome] = dict.fromkeys(able, "passed")
        self._canary = _Canary(post_id, partition, at_us, began_s, self._clock(), "searchable", able, outcomes)

    def _look(self, canary: _Canary) -> None:
        live = self._live()
        for generation in sorted(canary.waiting):
            answer = self._find(generation) if generation in live else None
            took_s = self._clock() - canary.sent_s
            if answer is not None and _has_happened(canary, answer):
                self._observer.saw(generation, canary.step, took_s)
            elif generation not in live:
                canary.outcomes[generation] = "unknown"
            elif took_s >= LOST_S:
                self._give_up(canary, generation, answer)
            else:
                continue
            canary.waiting.discard(generation)
        if canary.waiting:
            return
        if canary.step == "gone":
            self._end(canary)
        else:
            self._delete(canary)

    def _give_up(self, canary: _Canary, generation: Generation, answer: Found | None) -> None:
        if canary.outcomes[generation] == "passed":
            canary.outcomes[generation] = self._failure(canary, generation, answer)

    def _failure(self, canary: _Canary, generation: Generation, answer: Found | None) -> Outcome:
        if answer is None:
            return "unknown"
        if not answer.is_whole or self._behind_s(generation, canary.partition) >= LOST_S / 2:
            return "late"
        return "lost" if canary.step == "searchable" else "stayed"

    def _delete(self, canary: _Canary) -> None:
        """Called again if it fails."""
        try:
            self._ends.send(canary.post_id, _deleted(canary.post_id, self._later_us()))
        except StreamsError as error:
            self._complain(error)
            if self._clock() - canary.sent_s >= 2 * LOST_S:
                self._canary = None  # it is left, and deleted before a later one
            return
        canary.step, canary.sent_s = "gone", self._clock()
        canary.waiting = {generation for generation, outcome in canary.outcomes.items() if outcome == "passed"}

    def _end(self, canary: _Canary) -> None:
        self._canary = None
        self._next_s = max(canary.began_s + self._every_s, self._clock())
        troubles = dict(self.troubles)
        for generation, outcome in canary.outcomes.items():
            self._observer.ended(generation, outcome)
            if outcome in ("lost", "stayed"):
                before = troubles.get(generation)
                since_s = canary.began_s if before is None else before.since_s
                troubles[generation] = CanaryTrouble(generation, outcome, canary.post_id, since_s)
            elif outcome == "passed":
                troubles.pop(generation, None)
        self.troubles = troubles

    def _delete_leftovers(self, answers: Sequence[Found]) -> None:
        foreign_before_us = self._wall_us() - int(FOREIGN_S * 1e6)
        leftovers = {
            post_id: created_at_us
            for answer in answers
            for post_id, created_at_us in answer.created_at_us.items()
            if post_id in self._own or created_at_us < foreign_before_us
        }
        for post_id, created_at_us in leftovers.items():
            log.info("deleting a canary that was left", post_id=post_id)
            self._last_us = max(self._last_us, created_at_us)
            self._ends.send(PostId(post_id), _deleted(PostId(post_id), self._later_us()))

    def _find(self, generation: Generation) -> Found | None:
        try:
            return self._ends.find(generation)
        except RetrieverError as error:
            self._why_unable = str(error)
            return None

    def _note_whether(self, is_able: bool) -> None:
        """Says once if nobody could be asked for a minute. While an instance starts that is nothing."""
        now_s = self._clock()
        if is_able:
            self._able_at_s, self._is_unable, self._why_unable = now_s, False, ""
        elif not self._is_unable and now_s - self._able_at_s >= LOST_S:
            self._is_unable = True
            why = self._why_unable or "answers are partial"
            log.warning("no canary is sent, because no generation can say whether it is there", error=why)

    def _later_us(self) -> Micros:
        """Now, and later than every time before: an event that is not newer changes nothing."""
        self._last_us = Micros(max(self._wall_us(), self._last_us + 1))
        return self._last_us

    def _complain(self, error: StreamsError) -> None:
        if not self._fails:
            log.warning("a canary cannot be sent; it will be tried again", error=str(error))
        self._fails = True


def _has_happened(canary: _Canary, answer: Found) -> bool:
    is_there = answer.created_at_us.get(canary.post_id, Micros(-1)) >= canary.created_at_us
    return is_there if canary.step == "searchable" else answer.is_whole and not is_there


def _created(post_id: PostId, at_us: Micros) -> bytes:
    """The text is another one each time, so that its vector is computed and not taken from a cache."""
    text = f"A canary of nearline, sent at {to_rfc3339(at_us)} to see how long it takes. It is deleted in a moment."
    return msgspec.json.encode(PostCreated(post_id, CANARY_AUTHOR, text, EPOCH + at_us * MICROSECOND, "en"))


def _deleted(post_id: PostId, at_us: Micros) -> bytes:
    return msgspec.json.encode(PostDeleted(post_id, EPOCH + at_us * MICROSECOND))
