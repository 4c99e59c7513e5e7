"""Serves a retriever over HTTP and gRPC: both in one event loop, with one queue before the retriever."""

import asyncio
from collections.abc import Callable
from contextlib import closing, suppress
from threading import Event, Thread
from typing import NamedTuple

import uvloop

from retriever.grpc.server import GrpcServer
from retriever.http import server as http
from retriever.http.app import create_app
from retriever.http.tls import server_context
from retriever.service.answering import Answering, HotFeeds
from retriever.service.metrics import ServeMetrics
from retriever.service.service import Service
from retriever.settings import ServeSettings
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
) -> None:
    """Returns when `stop` is set and all running requests are answered. `status` is called in a thread for each request
    for it, and may block for seconds. Raises CannotListen, BadCertificate."""

    async def run() -> None:
        metrics = ServeMetrics(retriever, feeds)
        service = Service(retriever, metrics, settings)
        http_server = http.make_server(
            create_app(service, retriever, feeds, status, metrics, settings), server_context(settings)
        )
        grpc_server = GrpcServer(service, retriever.problems, status, settings)
        with http.listen(settings.host, settings.port) as listening, closing(service):
            # Both ports are taken before the first address is told to anybody.
            grpc_address = grpc_server.listen()
            await grpc_server.start()
            on_listening(Addresses(http.url_of(listening, settings.scheme), grpc_address))
            stopped = _set_by(stop)
            serving = asyncio.create_task(http_server.serve(sockets=[listening]))
            await asyncio.wait((serving, asyncio.create_task(stopped.wait())), return_when=asyncio.FIRST_COMPLETED)
            http_server.should_exit = True
            await asyncio.gather(serving, grpc_server.stop())

    uvloop.run(run())


def _set_by(stop: Event) -> asyncio.Event:
    """An event of this loop, which is set when the process is told to stop."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def wait() -> None:
        stop.wait()
        with suppress(RuntimeError):  # the loop has ended before
            loop.call_soon_threadsafe(stopped.set)

    Thread(target=wait, name="stop-server", daemon=True).start()
    return stopped
