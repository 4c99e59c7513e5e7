"""One implementation under HTTP and gRPC: both make the same request of what comes in, and write the same answer out.

A request waits for its turn, is answered in a thread within its deadline, and is counted.
"""

from collections.abc import Callable
from typing import Final, TypeVar

import structlog

from retriever.answer.question import Answer, PostVectors, Question
from retriever.errors import DeadlineExceeded, RequestRefused, RetrieverBusy, RetrieverError, RetrieverUnavailable
from retriever.service.answering import Answering
from retriever.service.metrics import ServeMetrics
from retriever.service.question_queue import QuestionQueue
from retriever.service.questions import question_of, similar_question
from retriever.settings import ServeSettings
from schemas.api import (
    PostResponse,
    RetrieveBatchRequest,
    RetrieveRequest,
    SimilarRequest,
    VectorsRequest,
)
from schemas.ids import Generation, PostId

_POST_WITHIN_S: Final = 10.0
"""People look at a single post, and rather wait."""
_WRITING_SHARE: Final = 0.1
"""Of the time of a request. What is left of it after the retriever's answer: for writing the answer and sending it."""
_MAX_WRITING_S: Final = 0.05

_log = structlog.get_logger(__name__)

T = TypeVar("T")
Within = float | None
"""Seconds that the caller waits, where it says so beside the message, as gRPC does. The smaller time counts."""


class Service:
    """Belongs to one event loop, in which the methods are called. `write` makes the body of an answer, in the thread
    that answered. All methods raise RetrieverUnavailable and RequestRefused."""

    def __init__(self, retriever: Answering, metrics: ServeMetrics, settings: ServeSettings) -> None:
        self._retriever = retriever
        self._metrics = metrics
        self._queue = QuestionQueue(settings.in_flight, settings.queue, count_refused=metrics.count_refused)
        metrics.watch_queue(lambda: self._queue.num_waiting, lambda: self._queue.num_in_flight)

    def close(self) -> None:
        self._queue.close()

    def check_room(self, within_s: Within) -> None:
        """Raises RetrieverBusy if a question that comes now would be refused, whatever it asks. So it need not be read,
        and an overload costs little."""
        self._queue.check_room(within_s)

    async def retrieve(self, request: RetrieveRequest, write: Callable[[Answer], T], within_s: Within = None) -> T:
        def work(left_s: float) -> T:
            return write(self._answer(question_of(request, left_s)))

        return await self._run(work, request.timeout_ms, within_s)

    async def similar(self, request: SimilarRequest, write: Callable[[Answer], T], within_s: Within = None) -> T:
        def work(left_s: float) -> T:
            return write(self._answer(similar_question(request, left_s)))

        return await self._run(work, request.timeout_ms, within_s)

    async def retrieve_batch(
        self, request: RetrieveBatchRequest, write: Callable[[list[Answer]], T], within_s: Within = None
    ) -> T:
        def work(left_s: float) -> T:
            answers = self._retriever.answer_batch(self._questions(request, left_s))
            for answer in answers:
                self._count(answer)
            return write(answers)

        return await self._run(work, request.timeout_ms, within_s)

    async def vectors(self, request: VectorsRequest, write: Callable[[PostVectors], T], within_s: Within = None) -> T:
        def work(left_s: float) -> T:
            ids = [PostId(post_id) for post_id in request.post_ids]
            generation = None if request.generation is None else Generation(request.generation)
            vectors = self._retriever.vectors(ids, left_s, generation)
            return write(vectors if request.dimension is None else vectors.cut(request.dimension))

        return await self._run(work, request.timeout_ms, within_s)

    async def post(self, post_id: PostId) -> PostResponse:
        return await self._queue.run(lambda _: self._retriever.post(post_id), _POST_WITHIN_S)

    async def _run(self, work: Callable[[float], T], timeout_ms: int, within_s: Within) -> T:
        """`work` gets the seconds within which the retriever has to answer."""
        timeout_s = timeout_ms / 1000
        try:
            return await self._queue.run(
                lambda left_s: work(left_s - min(left_s * _WRITING_SHARE, _MAX_WRITING_S)),
                timeout_s if within_s is None else min(timeout_s, within_s),
            )
        except RetrieverError as error:
            _log.debug("not answered", error=str(error))
            if isinstance(error, DeadlineExceeded):
                self._metrics.count_late()
            elif isinstance(error, RetrieverUnavailable) and not isinstance(error, RetrieverBusy):
                self._metrics.count_unavailable(error.generation)
            raise

    def _answer(self, question: Question) -> Answer:
        answer = self._retriever.answer(question)
        self._count(answer)
        return answer

    def _count(self, answer: Answer) -> None:
        """The line has the request's id too. An info line for each answer would be most of the log."""
        self._metrics.count(answer)
        _log.debug("answered", partial=answer.partial, reasons=[reason.code for reason in answer.reasons])

    def _questions(self, request: RetrieveBatchRequest, timeout_s: float) -> list[Question]:
        questions: list[Question] = []
        for number, query in enumerate(request.queries):
            try:
                self._retriever.check_generation(query.generation)
                questions.append(question_of(query, timeout_s))
            except RequestRefused as error:
                raise RequestRefused(f"queries.{number}.{error}", code=error.code) from None
        return questions
