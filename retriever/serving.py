"""Serves a retriever over HTTP and gRPC: both in one event loop, with one queue before the retriever."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from socket import socket
from threading import Event, Thread
from typing import NamedTuple

import uvloop

from retriever.grpc.server import GrpcServer
from retriever.http import server as http
from retriever.http.app import create_app
from retriever.http.server import HttpServer
from retriever.http.tls import certificate_end, server_context
from retriever.service.answering import Answering, HotFeeds
from retriever.service.metrics import ServeMetrics
from retriever.service.service import Service
from retriever.settings import ServeSettings
from retriever.sharing import wait_for_turn
from schemas.api import StatusResponse


class Addresses(NamedTuple):
    url: str
    """Of HTTP, such as http://127.0.0.1:8080."""
    grpc: str
    """Host and port, such as 127.0.0.1:8081."""


def serve(
    retriever: Answering,
    feeds: HotFeeds,
    status: Callable[[], StatusResponse],
    settings: ServeSettings,
    *,
    on_listening: Callable[[Addresses], None],
    stop: Event,
    own_port: int | None = None,
    on_own_url: Callable[[str], None] = lambda _: None,
    standing_still: Callable[[], Sequence[str]] = tuple,
) -> None:
    """Returns when `stop` is set and all running requests are answered. `status` is called in a thread for each request
    for it, and may block for seconds. Raises CannotListen, BadCertificate.

    `own_port` is for a worker that shares the ports of the settings with others: there it alone answers over HTTP, from
    the start, while it begins to listen at the shared ports when it is its turn (`sharing.py`). `on_own_url` takes the
    URL at which this very process can be asked, and `on_listening` the addresses at which it takes questions.
    `standing_still` gives a sentence for each stage of the instance that stands still, and must not block.
    """

    async def run() -> None:
        metrics = ServeMetrics(retriever, feeds)
        if (end_s := certificate_end(settings)) is not None:
            metrics.watch_certificate(end_s)
        service = Service(retriever, metrics, settings)
        http_server = http.make_server(
            create_app(service, retriever, feeds, status, metrics, settings, standing_still),
            server_context(settings),
        )
        grpc_server = GrpcServer(service, retriever.problems, status, settings, shared=own_port is not None)
        ways_in = _WaysIn(http_server, grpc_server, settings, on_listening, _set_by(stop))
        with closing(service):
            if own_port is None:
                await ways_in.serve_alone(on_own_url)
            else:
                await ways_in.serve_beside_others(own_port, on_own_url, lambda: not retriever.problems())

    uvloop.run(run())


class _WaysIn:
    """Both servers, in one event loop."""

    def __init__(
        self,
        http_server: HttpServer,
        grpc_server: GrpcServer,
        settings: ServeSettings,
        on_listening: Callable[[Addresses], None],
        stopped: asyncio.Event,
    ) -> None:
        self._http, self._grpc, self._settings = http_server, grpc_server, settings
        self._on_listening, self._stopped = on_listening, stopped

    async def serve_alone(self, on_own_url: Callable[[str], None]) -> None:
        settings = self._settings
        with http.listen(settings.host, settings.port) as listening:
            url = http.url_of(listening, settings.scheme)
            # Both ports are taken before the first address is told to anybody.
            await self._open_grpc(url)
            on_own_url(url)
            async with self._running(listening) as serving:
                await self._ended_or_stopped(serving)

    async def serve_beside_others(
        self, own_port: int, on_own_url: Callable[[str], None], is_ready: Callable[[], bool]
    ) -> None:
        settings = self._settings
        with ExitStack() as sockets:
            own = sockets.enter_context(http.listen(settings.host, own_port))
            on_own_url(http.url_of(own, settings.scheme))
            async with self._running(own) as serving:
                if await wait_for_turn(settings.host, settings.port, is_ready, self._stopped):
                    listening = sockets.enter_context(http.listen(settings.host, settings.port, shared=True))
                    await self._http.also_serve(listening)
                    await self._open_grpc(http.url_of(listening, settings.scheme))
                await self._ended_or_stopped(serving)

    async def _open_grpc(self, url: str) -> None:
        grpc_address = self._grpc.listen()
        await self._grpc.start()
        self._on_listening(Addresses(url, grpc_address))

    @asynccontextmanager
    async def _running(self, listening: socket) -> AsyncIterator[asyncio.Task[None]]:
        """HTTP is served within the context. At its end both servers answer what they have begun, and stop."""
        serving = asyncio.create_task(self._http.serve(sockets=[listening]))
        try:
            yield serving
        finally:
            self._http.should_exit = True
            await asyncio.gather(serving, self._grpc.stop())

    async def _ended_or_stopped(self, serving: asyncio.Task[None]) -> None:
        stopped = asyncio.create_task(self._stopped.wait())
        await asyncio.wait((serving, stopped), return_when=asyncio.FIRST_COMPLETED)


def _set_by(stop: Event) -> asyncio.Event:
    """An event of this loop, which is set when the process is told to stop."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def wait() -> None:
        stop.wait()
        with suppress(RuntimeError):  # the loop has ended before
            loop.call_soon_threadsafe(stopped.set)

    Thread(target=wait, name="stop-server", daemon=True).start()
    return stopped
