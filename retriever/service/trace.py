"""By what a request is found again: the id that its caller gave it, or one that we give it, and the place in the
caller's trace (W3C Trace Context). Both go into the log's lines about the request, and back to the caller."""

import os
import re
from collections.abc import Callable
from typing import Final, NamedTuple

import structlog

REQUEST_ID: Final = "x-request-id"
TRACEPARENT: Final = "traceparent"

_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]{0,64})?")


class Trace(NamedTuple):
    request_id: str
    traceparent: str | None = None

    def pairs(self) -> list[tuple[str, str]]:
        """Names and values, to be sent back."""
        pairs = [(REQUEST_ID, self.request_id)]
        return pairs if self.traceparent is None else [*pairs, (TRACEPARENT, self.traceparent)]

    def bind(self) -> None:
        """Into every line that is logged in this context from now on."""
        structlog.contextvars.bind_contextvars(request_id=self.request_id, traceparent=self.traceparent)


def trace_of(header: Callable[[str], str | None]) -> Trace:
    """`header` gives a request's header or metadata by its name. What cannot be an id, such as a line end that would
    forge a line of the log, is not taken."""
    request_id, traceparent = header(REQUEST_ID), header(TRACEPARENT)
    if request_id is None or not _REQUEST_ID.fullmatch(request_id):
        request_id = os.urandom(8).hex()
    if traceparent is not None and not _TRACEPARENT.fullmatch(traceparent):
        traceparent = None
    return Trace(request_id, traceparent)
