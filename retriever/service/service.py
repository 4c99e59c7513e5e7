"""One implementation under HTTP and gRPC: both make the same request of what comes in, and write the same answer out.

A request waits for its turn, and is answered in a thread within its deadline. Each of its questions is counted once:
when the answer, or the error, goes to the caller. What was wrong with a request is its caller's mistake, and does not
count. Nor does it count if the monitor looks for its canaries.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

import structlog

from retriever.answer.question import Answer, PostVectors, Question
from retriever.errors import DeadlineExceeded, RequestRefused, RetrieverBusy, RetrieverError, RetrieverUnavailable
from retriever.service.answering import Answering
from retriever.service.metrics import Outcome, ServeMetrics
from retriever.service.question_queue import QuestionQueue
from retriever.service.questions import question_of, similar_question
from retriever.settings import ServeSettings
from schemas.api import (
    BatchQuery,
    PostResponse,
    RetrieveBatchRequest,
    RetrieveRequest,
    SimilarRequest,
    VectorsRequest,
)
from schemas.canaries import asks_for_canaries
from schemas.ids import Generation, PostId

_POST_WITHIN_MS: Final = 10_000
"""People look at a single post, and rather wait."""
_WRITING_SHARE: Final = 0.1
"""Of the time of a request. What is left of it after the retriever's answer: for writing the answer and sending it."""
_MAX_WRITING_S: Final = 0.05

_log = structlog.get_logger(__name__)

T = TypeVar("T")
Within = float | None
"""Seconds that the caller waits, where it says so beside the message, as gRPC does. The smaller time counts."""


class _Made(NamedTuple, Generic[T]):
    """By the thread that answers."""

    body: T
    outcomes: Sequence[tuple[Outcome, str]]
    """Of the questions that count, and who has answered each. They are counted if the body is in time."""


class Service:
    """Belongs to one event loop, in which the methods are called. `write` makes the body of an answer, in the thread
    that answered. All methods raise RetrieverUnavailable and RequestRefused."""

    def __init__(
        self,
        retriever: Answering,
        metrics: ServeMetrics,
        settings: ServeSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._retriever = retriever
        self._metrics = metrics
        self._clock = clock
        self._queue = QuestionQueue(settings.in_flight, settings.queue, clock=clock)
        metrics.watch_queue(lambda: self._queue.num_waiting, lambda: self._queue.num_in_flight)

    def close(self) -> None:
        self._queue.close()

    def check_room(self, within_s: Within) -> None:
        """Raises RetrieverBusy if a question that comes now would be refused, whatever it asks. So it need not be read,
        and an overload costs little. It counts as one question: nobody knows how many it holds, or whose."""
        try:
            self._queue.check_room(within_s)
        except RetrieverBusy:
            self._metrics.count_refused()
            raise

    async def retrieve(self, request: RetrieveRequest, write: Callable[[Answer], T], within_s: Within = None) -> T:
        def work(left_s: float) -> _Made[T]:
            return self._answer(question_of(request, left_s), write)

        return await self._run(work, request.timeout_ms, within_s, _num_counted([request]))

    async def similar(self, request: SimilarRequest, write: Callable[[Answer], T], within_s: Within = None) -> T:
        def work(left_s: float) -> _Made[T]:
            return self._answer(similar_question(request, left_s), write)

        return await self._run(work, request.timeout_ms, within_s, _num_counted([request]))

    async def retrieve_batch(
        self, request: RetrieveBatchRequest, write: Callable[[list[Answer]], T], within_s: Within = None
    ) -> T:
        def work(left_s: float) -> _Made[T]:
            questions = self._questions(request, left_s)
            answers = self._retriever.answer_batch(questions)
            return _Made(write(answers), self._outcomes(questions, answers))

        return await self._run(work, request.timeout_ms, within_s, _num_counted(request.queries))

    async def vectors(self, request: VectorsRequest, write: Callable[[PostVectors], T], within_s: Within = None) -> T:
        def work(left_s: float) -> _Made[T]:
            ids = [PostId(post_id) for post_id in request.post_ids]
            generation = None if request.generation is None else Generation(request.generation)
            vectors = self._retriever.vectors(ids, left_s, generation)
            body = write(vectors if request.dimension is None else vectors.cut(request.dimension))
            return _Made(body, [(_outcome(vectors.partial), vectors.generation)])

        return await self._run(work, request.timeout_ms, within_s, 1)

    async def post(self, post_id: PostId) -> PostResponse:
        def work(_: float) -> _Made[PostResponse]:
            post = self._retriever.post(post_id)
            return _Made(post, [("whole", post.generation)])

        return await self._run(work, _POST_WITHIN_MS, None, 1)

    async def _run(self, work: Callable[[float], _Made[T]], timeout_ms: int, within_s: Within, num_questions: int) -> T:
        """`work` gets the seconds within which the retriever has to answer. `num_questions`: of those that count."""
        timeout_s = timeout_ms / 1000 if within_s is None else min(timeout_ms / 1000, within_s)
        too_late_s = self._clock() + _for_answer(timeout_s)
        try:
            made = await self._queue.run(lambda left_s: work(_for_answer(left_s)), timeout_s)
        except asyncio.CancelledError:
            # gRPC ends the call of a client whose time is over, often a moment before our own clock does. A client that
            # goes earlier has not waited in vain.
            if self._clock() >= too_late_s:
                self._metrics.count_late(num_questions)
            raise
        except Exception as error:
            self._count_error(error, num_questions)
            raise
        for outcome, generation in made.outcomes:
            self._metrics.count(outcome, generation)
        return made.body

    def _count_error(self, error: Exception, num_questions: int) -> None:
        if isinstance(error, RetrieverError):
            _log.debug("not answered", error=str(error))
        if isinstance(error, RequestRefused) or not num_questions:
            return
        if isinstance(error, RetrieverBusy):
            self._metrics.count_refused(num_questions)
        elif isinstance(error, DeadlineExceeded):
            self._metrics.count_late(num_questions)
        elif isinstance(error, RetrieverUnavailable):
            self._metrics.count("unavailable", error.generation, num_questions)
        else:
            self._metrics.count("failed", None, num_questions)

    def _answer(self, question: Question, write: Callable[[Answer], T]) -> _Made[T]:
        answer = self._retriever.answer(question)
        return _Made(write(answer), self._outcomes([question], [answer]))

    def _outcomes(self, questions: Sequence[Question], answers: Sequence[Answer]) -> list[tuple[Outcome, Generation]]:
        """Of the answers that count; measures these."""
        outcomes: list[tuple[Outcome, Generation]] = []
        for question, answer in zip(questions, answers, strict=True):
            # The line has the request's id too. An info line for each answer would be most of the log.
            _log.debug("answered", partial=answer.partial, reasons=[reason.code for reason in answer.reasons])
            if not asks_for_canaries(question.filters.only_authors):
                self._metrics.measure(answer)
                outcomes.append((_outcome(answer.partial), answer.generation))
        return outcomes

    def _questions(self, request: RetrieveBatchRequest, timeout_s: float) -> list[Question]:
        questions: list[Question] = []
        for number, query in enumerate(request.queries):
            try:
                self._retriever.check_generation(query.generation)
                questions.append(question_of(query, timeout_s))
            except RequestRefused as error:
                raise RequestRefused(f"queries.{number}.{error}", code=error.code) from None
        return questions


def _num_counted(questions: Sequence[BatchQuery | SimilarRequest]) -> int:
    return sum(not asks_for_canaries(question.only_authors) for question in questions)


def _outcome(partial: bool) -> Outcome:
    return "partial" if partial else "whole"


def _for_answer(left_s: float) -> float:
    """The part of this time that the retriever has; the rest is for writing."""
    return left_s - min(left_s * _WRITING_SHARE, _MAX_WRITING_S)
