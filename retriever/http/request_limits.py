"""What a stranger may cost: the size of a request and the time it may take to come in, and how many are in hand.

ASGI middleware. The event loop calls it, one piece after the other, so counting needs no lock.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.api import Failure

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""10,000 posts and 10,000 authors to leave out, with ids of 256 bytes, are 5 MB."""
MAX_BODIES_BYTES: Final = 8 * MAX_BODY_BYTES
"""Of all requests together: many large ones that come in slowly must not fill the memory."""
BODY_S: Final = 30.0
"""The largest body over a line of 2 MBit/s."""
OPERATIONS_IN_FLIGHT: Final = 4
"""They wait for the broker and for other processes, up to seconds, so they must not take the places of questions."""

_RETRY: Final = {"Retry-After": "1"}
"""Seconds, and the least that can be said. A place is free again within a few hundredths of that."""
_QUESTIONS: Final = ("/v1/retrieve", "/v1/posts/")


def refusal(status: int, sentence: str, headers: Mapping[str, str]) -> JSONResponse:
    return JSONResponse(Failure(detail=sentence).model_dump(), status, headers)


class BodyLimit:
    """Reads the body before the app, which wants it whole anyway: counted while it comes in, so that what will be
    refused is not kept."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._kept_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = bytearray()
        try:
            refused = await self._read(scope, receive, body)
            if refused is not None:
                await refused(scope, receive, send)
                return
            unread: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

            async def replay() -> Message:
                return unread.pop() if unread else await receive()

            await self._app(scope, replay, send)
        finally:
            self._kept_bytes -= len(body)

    async def _read(self, scope: Scope, receive: Receive, body: bytearray) -> JSONResponse | None:
        """Fills `body`; an answer where it must not. Half a body, when the client is gone, is the app's to refuse."""
        said = Headers(scope=scope).get("content-length", "")
        if said.isdecimal() and int(said) > self._max_bytes:
            return self._too_large()
        try:
            async with asyncio.timeout(BODY_S):
                more = True
                while more:
                    message = await receive()
                    piece = message.get("body", b"")
                    body += piece
                    self._kept_bytes += len(piece)
                    if len(body) > self._max_bytes:
                        return self._too_large()
                    if self._kept_bytes > MAX_BODIES_BYTES:
                        return _hang_up(429, "too many large requests come in at the same time; try again later")
                    more = message.get("more_body", False)
        except TimeoutError:
            return _hang_up(408, f"the request did not come in within {BODY_S:g} s")
        return None

    def _too_large(self) -> JSONResponse:
        return _hang_up(413, f"the request is larger than {self._max_bytes:,} bytes; send fewer ids or a shorter text")


class InFlight:
    """Lets in what can be answered soon, and tells the rest at once to come again: what waits here would only slow down
    the others. Stands behind BodyLimit, so that a slow client takes no place."""

    def __init__(self, app: ASGIApp, questions: int, count_refused: Callable[[], None]) -> None:
        self._app = app
        self._free = {"questions": questions, "operations": OPERATIONS_IN_FLIGHT}
        self._count_refused = count_refused
        self._busy = refusal(429, "the retriever has as many requests in hand as it takes; try again", _RETRY)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = _kind(scope)
        if kind is None:
            await self._app(scope, receive, send)
        elif self._free[kind] == 0:
            self._count_refused()
            await self._busy(scope, receive, send)
        else:
            self._free[kind] -= 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._free[kind] += 1


def _kind(scope: Scope) -> str | None:
    """None for what is answered without a thread: health, metrics, the description."""
    if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
        return None
    return "questions" if scope["path"].startswith(_QUESTIONS) else "operations"


def _hang_up(status: int, sentence: str) -> JSONResponse:
    """What is left of the body is not read, so the connection cannot be used again."""
    return refusal(status, sentence, {"Connection": "close", **(_RETRY if status == 429 else {})})
