"""Limits what clients may cost: the size of a request, the time to receive it, and how many are answered at once.

ASGI middleware. It runs in the event loop only, so counting needs no lock.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retriever.errors import RetrieverBusy
from retriever.http.problems import problem
from retriever.service.problems import Trouble, trouble_of
from schemas.api import ProblemCode

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""The largest useful request excludes 10,000 posts and 10,000 authors. With ids of 256 bytes that is 5 MB."""
MAX_BODIES_BYTES: Final = 8 * MAX_BODY_BYTES
"""Of all requests together, so that many large requests which arrive slowly do not fill the memory."""
BODY_S: Final = 30.0
"""Long enough for the largest body over a line of 2 MBit/s."""
OPERATIONS_IN_FLIGHT: Final = 4
"""Operations wait up to seconds for the broker and for other processes, so they do not share the places of
questions."""

_RETRY_AFTER_S: Final = 1.0
"""Nobody knows how long an operation or a slow client takes."""
_QUESTIONS: Final = ("/v1/retrieve", "/v1/similar", "/v1/vectors", "/v1/posts/")
"""These wait for their turn in the queue that they share with gRPC. All others under /v1/ are operations."""


class BodyLimit:
    """Reads the whole body before it calls the app. Counts the bytes as they arrive, so that a body that is too large
    is refused before it fills the memory."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._held_bytes = 0

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
            self._held_bytes -= len(body)

    async def _read(self, scope: Scope, receive: Receive, body: bytearray) -> Response | None:
        """Fills `body`. Returns a refusal if it is too large or too slow, else None. If the client is gone, the body is
        incomplete, and the app refuses it."""
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            return self._too_large()
        try:
            async with asyncio.timeout(BODY_S):
                more = True
                while more:
                    message = await receive()
                    piece = message.get("body", b"")
                    body += piece
                    self._held_bytes += len(piece)
                    if len(body) > self._max_bytes:
                        return self._too_large()
                    if self._held_bytes > MAX_BODIES_BYTES:
                        return _hang_up(ProblemCode.BUSY, "too many large requests arrive at the same time; try again")
                    more = message.get("more_body", False)
        except TimeoutError:
            return _hang_up(ProblemCode.TOO_SLOW, f"the request did not arrive within {BODY_S:g} s")
        return None

    def _too_large(self) -> Response:
        sentence = f"the request is larger than {self._max_bytes:,} bytes; send fewer ids or a shorter text"
        return _hang_up(ProblemCode.TOO_LARGE, sentence)


class QuestionLimit:
    """Refuses a question that would be refused whatever it asks, before the app looks at it: that takes a third of the
    time. Runs after BodyLimit, because a connection goes on only behind a request that was read."""

    def __init__(self, app: ASGIApp, check_room: Callable[[], None]) -> None:
        """`check_room` raises RetrieverBusy."""
        self._app = app
        self._check_room = check_room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._app
        if scope["type"] == "http" and scope["path"].startswith(_QUESTIONS):
            try:
                self._check_room()
            except RetrieverBusy as error:
                answer = problem(trouble_of(error))
        await answer(scope, receive, send)


class OperationLimit:
    """Lets in as many operations as have threads, and refuses all others at once. Runs after BodyLimit, so that a
    client that sends slowly takes no place. What it refuses is no question, and is not counted as one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._free = OPERATIONS_IN_FLIGHT

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_operation(scope):
            await self._app(scope, receive, send)
        elif self._free == 0:
            sentence = "the retriever already answers as many operations as it can; try again"
            await problem(Trouble(ProblemCode.BUSY, sentence, _RETRY_AFTER_S))(scope, receive, send)
        else:
            self._free -= 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._free += 1


def _is_operation(scope: Scope) -> bool:
    """Health, metrics and the OpenAPI description are answered without a thread."""
    return scope["type"] == "http" and scope["path"].startswith("/v1/") and not scope["path"].startswith(_QUESTIONS)


def _hang_up(code: ProblemCode, sentence: str) -> Response:
    """Closes the connection, because the rest of the body stays unread in it."""
    retry_after_s = _RETRY_AFTER_S if code is ProblemCode.BUSY else None
    return problem(Trouble(code, sentence, retry_after_s), {"Connection": "close"})
