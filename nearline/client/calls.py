"""The calls that both clients make: which method, with which message, and how its answer is read."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from nearline.client import messages
from nearline.client.answer import Answer, Status, Vectors
from nearline.client.connections import Method
from nearline.client.question import Question
from retriever import nearline_pb2 as pb
from retriever.errors import RequestRefused

TIMEOUT_S: Final = 0.25
"""A moment more than the 200 ms in which the retriever answers unless it is told otherwise."""
STATUS_TIMEOUT_S: Final = 10.0
READY_TIMEOUT_S: Final = 1.0
_WAY_BACK_S: Final = 0.05
_WAY_BACK_SHARE: Final = 0.2
_MAX_TIMEOUT_MS: Final = 60_000
"""The retriever refuses more."""
_LONGEST_S: Final = 24 * 3600.0
"""What is much further away gRPC takes for over."""
_SERVING: Final = b"\x08\x01"
"""The first bytes of grpc.health.v1.HealthCheckResponse if the status is SERVING. The message has no other field, so
it is not worth another package."""

R = TypeVar("R")


def _of_retriever(name: str, request: Any, response: Any) -> Method:
    return Method(f"/nearline.v1.Retriever/{name}", request.SerializeToString, response.FromString)


RETRIEVE: Final = _of_retriever("Retrieve", pb.RetrieveRequest, pb.RetrieveResponse)
RETRIEVE_BATCH: Final = _of_retriever("RetrieveBatch", pb.RetrieveBatchRequest, pb.RetrieveBatchResponse)
SIMILAR: Final = _of_retriever("Similar", pb.SimilarRequest, pb.RetrieveResponse)
VECTORS: Final = _of_retriever("Vectors", pb.VectorsRequest, pb.VectorsResponse)
STATUS: Final = _of_retriever("Status", pb.StatusRequest, pb.StatusResponse)
HEALTH: Final = Method("/grpc.health.v1.Health/Check", bytes, bytes)
METHODS: Final = (RETRIEVE, RETRIEVE_BATCH, SIMILAR, VECTORS, STATUS, HEALTH)


class Call(NamedTuple, Generic[R]):
    method: Method
    message: Any
    read: Callable[[Any, str | None], R]
    """Makes our answer of the message and the request id."""

    def tell_deadline(self, left_s: float) -> None:
        """Asks for the answer a little before the time is over, because it has a way back. Otherwise an answer that is
        partial because of its deadline would always come too late."""
        if self.method in (STATUS, HEALTH):
            return
        way_back_s = min(_WAY_BACK_S, _WAY_BACK_SHARE * left_s)
        self.message.timeout_ms = min(max(1, math.floor((left_s - way_back_s) * 1000)), _MAX_TIMEOUT_MS)


def retrieve(question: Question) -> Call[Answer]:
    """Raises RequestRefused, as the next three do."""
    columns = question.columns

    def read(message: pb.RetrieveResponse, request_id: str | None) -> Answer:
        return messages.answer_of(message, columns, request_id)

    return Call(RETRIEVE, messages.retrieve_request(question), read)


def retrieve_batch(questions: Sequence[Question]) -> Call[list[Answer]]:
    columns = [question.columns for question in questions]

    def read(message: pb.RetrieveBatchResponse, request_id: str | None) -> list[Answer]:
        pairs = zip(message.answers, columns, strict=True)
        return [messages.answer_of(answer, asked, request_id) for answer, asked in pairs]

    return Call(RETRIEVE_BATCH, messages.batch_request(questions), read)


def similar(question: Question) -> Call[Answer]:
    return retrieve(question)._replace(method=SIMILAR, message=messages.similar_request(question))


def vectors(post_ids: Sequence[str], generation: str | None, dimension: int | None) -> Call[Vectors]:
    return Call(VECTORS, messages.vectors_request(post_ids, generation, dimension), messages.vectors_of)


def status() -> Call[Status]:
    return Call(STATUS, pb.StatusRequest(), lambda message, _: messages.status_of(message))


def ready() -> Call[bool]:
    return Call(HEALTH, b"", lambda message, _: message.startswith(_SERVING))


def checked_timeout_s(timeout_s: float | None, otherwise_s: float) -> float:
    """`otherwise_s` if it is None. Raises RequestRefused."""
    if timeout_s is None:
        return otherwise_s
    if not 0.0 < timeout_s < math.inf:
        raise RequestRefused(f"timeout_s: give a number of seconds above 0, not {timeout_s}")
    return min(timeout_s, _LONGEST_S)
