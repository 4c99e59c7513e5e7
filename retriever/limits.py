"""How large a request may be: counted while it comes in, so that what will be refused is not kept."""

from typing import Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""10,000 posts and 10,000 authors to leave out, with ids of 256 bytes, are 5 MB."""


class BodyLimit:
    """ASGI middleware. Reads the body before the app, which wants it whole anyway."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = Headers(scope=scope).get("content-length", "")
        body = None if said.isdigit() and int(said) > self._max_bytes else await self._read(receive)
        if body is None:
            sentence = f"the request is larger than {self._max_bytes:,} bytes; send fewer ids or a shorter text"
            # What is left of the body is not read, so the connection cannot be used again.
            await JSONResponse({"detail": sentence}, 413, {"Connection": "close"})(scope, receive, send)
            return
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, replay, send)

    async def _read(self, receive: Receive) -> bytes | None:
        """None where it is too large. Half a body, when the client is gone, is the app's to refuse."""
        body = bytearray()
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                return None
            more = message.get("more_body", False)
        return bytes(body)
