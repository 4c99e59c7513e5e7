"""The retriever over several generations: gives each question to one of them, and says which one it was.

Everything of an answer comes from one generation. Knows neither the log that names the generations nor what one of them
consists of.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import structlog

from retriever.answer.figures import Figures
from retriever.answer.question import DEFAULT_TIMEOUT_S, Answer, PostVectors, Question
from retriever.errors import RequestRefused, RetrieverError
from retriever.feed.hot_feed import FeedFigures
from retriever.generations.canary_watch import CanaryBounds, CanaryWatch, Verdict
from retriever.generations.keeper import Keeper
from retriever.generations.opening import Open
from retriever.generations.roles import Roles
from retriever.generations.slots import Asked, Slot, Slots, Wish
from schemas.api import GenerationReadiness, HotPositions, HotPost, PostResponse
from schemas.ids import Generation, PostId

_NONE_OPEN: Final = "no generation is open here yet"
_NOT_OPENED: Final = "it cannot be opened here; the log of the retriever says why"
"""Without the error itself, which may hold a path: `/readyz` shows this sentence to everybody, without an API key."""

_log = structlog.get_logger(__name__)


class ServedGenerations:
    """Implements `Answering`."""

    def __init__(
        self, open_generation: Open, bounds: CanaryBounds, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._slots = Slots()
        self._keeper = Keeper(self._slots, open_generation)
        self._watch = CanaryWatch(bounds, clock)
        self._clock = clock
        self.feeds = Feeds(self._slots)

    def take(self, roles: Roles) -> None:
        """What the log says now. Takes effect between two questions. Returns at once."""
        self._slots.take(roles)
        self._watch.forget(roles.open)
        self._keeper.wake()

    def verdict(self) -> Verdict | None:
        """Why the canary that answers now is to end. None if it keeps within its bounds, or there is none."""
        verdict = self._watch.verdict()
        return verdict if verdict is not None and verdict.trial == self._slots.trial() else None

    def missed(self, generation: Generation, share: float) -> None:
        """The share of what an exact search finds that one answer of the generation did not have. Any thread may tell
        it."""
        self._watch.missed(generation, share)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Generations are opened and closed from now on. Leave the block when nobody asks any more."""
        with self._keeper.running():
            yield

    def is_open(self, generation: Generation) -> bool:
        """Also while it is being filled. False from when nobody new asks it."""
        return any(slot.generation == generation for slot in self._slots.all())

    @property
    def generation(self) -> Generation:
        return self._slots.serving().generation

    def check_generation(self, generation: str | None) -> None:
        self._slots.check(generation)

    def answer(self, question: Question) -> Answer:
        return self.answer_batch([question])[0]

    def answer_batch(self, questions: Sequence[Question]) -> list[Answer]:
        """Those of each generation are answered together, those of the serving one first."""
        began_s = self._clock()
        with self._slots.asking([Wish(question.generation, question.member_id) for question in questions]) as asked:
            groups = _groups(asked)
            if len(groups) == 1:
                return self._answer_group(asked, questions)
            answers: dict[int, Answer] = {}
            for rows in groups:
                own = [_with_less_time(questions[row], self._clock() - began_s) for row in rows]
                answers |= zip(rows, self._answer_group([asked[row] for row in rows], own), strict=True)
            return [answers[row] for row in range(len(questions))]

    def _answer_group(self, asked: Sequence[Asked], questions: Sequence[Question]) -> list[Answer]:
        """All of them ask one generation. Where a canary fails, the serving one answers in its place."""
        began_s, slot = self._clock(), asked[0].slot
        try:
            answers = _ask(slot, questions)
        except RequestRefused:
            raise
        except Exception as error:
            for one in asked:
                self._watch.saw(one, None, is_bad=True)
            if not all(one.is_canary for one in asked):
                raise
            _log.warning("the canary failed, and the serving generation is asked", error=str(error))
            with self._slots.asking([Wish()]) as ((serving, _),):
                return _ask(serving, [_with_less_time(question, self._clock() - began_s) for question in questions])
        took_s = self._clock() - began_s if len(asked) == 1 else None
        for one, answer in zip(asked, answers, strict=True):
            self._watch.saw(one, took_s, is_bad=answer.partial)
        return answers

    def vectors(
        self, ids: Sequence[PostId], timeout_s: float = DEFAULT_TIMEOUT_S, generation: Generation | None = None
    ) -> PostVectors:
        with self._slots.asking([Wish(generation)]) as ((slot, _),), _named(slot):
            return slot.opened.retriever.vectors(ids, timeout_s)

    def post(self, post_id: PostId) -> PostResponse:
        with self._slots.asking([Wish()]) as ((slot, _),), _named(slot):
            return slot.opened.retriever.post(post_id)

    def hot_posts(self, generation: Generation | None = None) -> Iterator[HotPost]:
        with self._slots.asking([Wish(generation)]) as ((slot, _),):
            yield from slot.opened.retriever.hot_posts()

    def figures(self) -> list[Figures]:
        return [figures for slot in self._slots.all() for figures in slot.opened.retriever.figures()]

    def problems(self) -> list[str]:
        try:
            return self._slots.serving().opened.retriever.problems()
        except RetrieverError:
            failed = self._keeper.could_not_open()
            return [f"{_NONE_OPEN}: {generation}: {_NOT_OPENED}" for generation in failed] or [_NONE_OPEN]

    def beside(self) -> Mapping[Generation, GenerationReadiness]:
        problems = {slot.generation: slot.opened.retriever.problems() for slot in self._slots.beside()}
        problems |= {generation: [_NOT_OPENED] for generation in self._keeper.could_not_open()}
        return {
            generation: GenerationReadiness(
                state=self._slots.state_of(generation), ready=not sentences, problems=sentences
            )
            for generation, sentences in problems.items()
        }


class Feeds:
    """Implements `HotFeeds`."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots

    def progress(self, generation: Generation | None = None) -> HotPositions:
        with self._slots.asking([Wish(generation)]) as ((slot, _),):
            return slot.opened.feed.progress()

    def figures(self) -> list[FeedFigures]:
        return [figures for slot in self._slots.all() for figures in slot.opened.feed.figures()]


def _groups(asked: Sequence[Asked]) -> list[list[int]]:
    """Rows that ask the same generation."""
    groups: dict[Generation, list[int]] = {}
    for row, (slot, _) in enumerate(asked):
        groups.setdefault(slot.generation, []).append(row)
    return sorted(groups.values(), key=lambda rows: asked[rows[0]].is_canary)


def _ask(slot: Slot, questions: Sequence[Question]) -> list[Answer]:
    with _named(slot):
        return slot.opened.retriever.answer_batch(questions)


def _with_less_time(question: Question, elapsed_s: float) -> Question:
    """With the time that is left of its own."""
    return replace(question, timeout_s=max(question.timeout_s - elapsed_s, 0.0))


@contextmanager
def _named(slot: Slot) -> Iterator[None]:
    """Errors say which generation was asked."""
    try:
        yield
    except RetrieverError as error:
        error.generation = slot.generation
        raise
