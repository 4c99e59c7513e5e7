"""Takes a request's id and its place in a trace from its headers, and sends them back. ASGI middleware."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retriever.service.trace import trace_of


class Tracing:
    """Add it last, so that it runs first: refusals by other middleware carry the id too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace = trace_of(Headers(scope=scope).get)
        trace.bind()

        async def send_traced(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in trace.pairs():
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, send_traced)
