"""The retriever's service, asked without a socket."""

import asyncio
from functools import cache
from typing import Any, NoReturn, cast

import grpc

from retriever.grpc.arrivals import Arrivals
from retriever.grpc.calls import CODE, SERVICE, Calls
from retriever.http.app import create_app
from retriever.service.metrics import ServeMetrics
from retriever.service.service import Service as SharedService
from retriever.settings import ServeSettings
from tests.kit.retrievers import RetrieverSetup, Served, asking_member, scored_post


class Refused(Exception):
    """The code and the sentence of an error of gRPC."""


class _Context:
    """Of a call with one message, without metadata and without a deadline."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self) -> bytes:
        return self._body

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def time_remaining(self) -> None:
        return None

    def set_trailing_metadata(self, _: object) -> None: ...

    async def abort(self, _: grpc.StatusCode, sentence: str, trailing: tuple[tuple[str, str], ...]) -> NoReturn:
        raise Refused(dict(trailing)[CODE], sentence)


class _Details:
    def __init__(self, call: str) -> None:
        self.method = f"/{SERVICE}/{call}"


class Service:
    """Both ways in over plain tiers."""

    def __init__(self) -> None:
        retriever = RetrieverSetup()
        retriever.in_both(scored_post("p1"), scored_post("p2", 0.2, language=None))
        retriever.in_cold(asking_member("m1", acted=["p1"]))
        retriever.trends(p1=3.0)
        asked = retriever.under_test
        feed = Served(retriever).feed
        metrics = ServeMetrics(asked, feed)
        shared = SharedService(asked, metrics, ServeSettings())
        self._app: Any = create_app(shared, asked, feed, retriever.status, metrics, ServeSettings())
        self._calls = Calls(shared, retriever.status, Arrivals())
        self._loop = asyncio.new_event_loop()

    def call(self, call: str, body: bytes) -> bytes:
        """Over gRPC. Raises Refused."""
        handler: Any = self._calls.service(cast(Any, _Details(call)))
        return bytes(self._loop.run_until_complete(handler.stream_unary(None, _Context(body))))

    def ask(self, body: bytes) -> tuple[int, bytes]:
        """`/v1/retrieve` over HTTP."""
        return self._loop.run_until_complete(self._ask(body))

    async def _ask(self, body: bytes) -> tuple[int, bytes]:
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[Any] = []

        async def receive() -> Any:
            return messages.pop() if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/v1/retrieve",
            "raw_path": b"/v1/retrieve",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")],
            "server": ("localhost", 80),
            "client": ("localhost", 1),
        }
        await self._app(scope, receive, send)
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@cache
def service() -> Service:
    return Service()
