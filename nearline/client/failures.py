"""Turns a failed gRPC call into one of our errors, and says whether the same call may succeed later.

The retriever says the cause in trailing metadata: `nearline-code` and `retry-after-ms` (`retriever/nearline.proto`).
"""

import re
from collections.abc import Iterable
from typing import Any, Final

import grpc

from nearline.client.retries import Failure
from retriever.errors import (
    DeadlineExceeded,
    NotAllowed,
    RequestRefused,
    RetrieverBusy,
    RetrieverError,
    RetrieverUnavailable,
)

_CODE: Final = "nearline-code"
_RETRY_AFTER: Final = "retry-after-ms"
_REQUEST_ID: Final = "x-request-id"
_ERRORS: Final[dict[grpc.StatusCode, type[RetrieverError]]] = {
    grpc.StatusCode.UNAUTHENTICATED: NotAllowed,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowed,
    grpc.StatusCode.INVALID_ARGUMENT: RequestRefused,
    grpc.StatusCode.NOT_FOUND: RequestRefused,
    grpc.StatusCode.FAILED_PRECONDITION: RequestRefused,
    grpc.StatusCode.OUT_OF_RANGE: RequestRefused,
    grpc.StatusCode.RESOURCE_EXHAUSTED: RetrieverBusy,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}
"""All others are RetrieverUnavailable."""


def failure_of(error: Any, target: str) -> Failure:
    """Of a `grpc.RpcError` of either kind of channel."""
    status, said = error.code(), texts(error.trailing_metadata())
    kind = _ERRORS.get(status, RetrieverUnavailable)
    if kind is RetrieverBusy and _CODE not in said:
        kind = RequestRefused  # gRPC itself says so of a message that is too large, which no retry makes smaller
    is_ours = _CODE in said or issubclass(kind, RequestRefused)
    about: dict[str, Any] = {"code": said.get(_CODE), "request_id": said.get(_REQUEST_ID)}
    retry_after_s = _seconds(said.get(_RETRY_AFTER))
    if issubclass(kind, RetrieverUnavailable):
        about["retry_after_s"] = retry_after_s
    detail = error.details() or "no reason is given"
    failed = kind(detail if is_ours else _sentence(status, detail, target), **about)
    failed.__cause__ = error
    may_pass = status is grpc.StatusCode.UNAVAILABLE or (kind is RetrieverBusy and retry_after_s is not None)
    return Failure(failed, may_pass)


def _sentence(status: grpc.StatusCode, detail: str, target: str) -> str:
    """Around what gRPC says, where the retriever itself said nothing."""
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"the retriever at {target} did not answer in time"
    if status is grpc.StatusCode.UNIMPLEMENTED:
        return f"the server at {target} is not a retriever of this version"
    if status is grpc.StatusCode.UNAVAILABLE:
        return f"the retriever at {target} does not answer ({detail})"
    return f"the retriever at {target} failed ({detail})"


def request_id_of(*metadata: Iterable[tuple[str, Any]] | None) -> str | None:
    """The id that the retriever gave the request, from its initial or its trailing metadata."""
    return next((found for each in metadata if (found := texts(each).get(_REQUEST_ID)) is not None), None)


def texts(metadata: Iterable[tuple[str, Any]] | None) -> dict[str, str]:
    """Without binary values."""
    return {key: value for key, value in metadata or () if isinstance(value, str)}


def _seconds(milliseconds: str | None) -> float | None:
    """None for anything but a plain number: a server of another kind may have put itself between."""
    return int(milliseconds) / 1000 if milliseconds is not None and re.fullmatch(r"\d{1,9}", milliseconds) else None
