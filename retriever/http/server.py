"""Serves the app. Binds the socket first, so that a port that the system has chosen is known before it is announced.

Also bounds what the app cannot see: connections, TLS handshakes, slow headers and clients that do not read.
"""

import asyncio
import os
import resource
import socket
import ssl
from collections.abc import Callable
from contextlib import nullcontext
from threading import Event, Thread
from typing import Any, Final

import h11
import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from retriever.errors import CannotListen

log = structlog.get_logger(__name__)

DRAIN_S: Final = 10
"""Running requests may take this long after a stop."""
KEEP_ALIVE_S: Final = 75
"""Most proxies and connection pools keep an idle connection for about this time."""
HEAD_S: Final = 10.0
"""Time for the headers, from the first byte of a request or from the opening of the connection. A slow line takes one
second. A TLS handshake may take the same time again."""
UNREAD_S: Final = 30.0
"""If a client reads nothing of its answer for this time, the connection is closed."""


class _Server(uvicorn.Server):
    def capture_signals(self) -> Any:
        """Leaves signals to the process, which sets `stop`."""
        return nullcontext()


class _HeaderDeadline(H11Protocol):
    """HTTP with a deadline for headers, and for the rest of a body that is already refused. uvicorn limits only the
    silence between two requests, so that a client could send either byte by byte without end. All other bodies are
    limited by `request_limits.BodyLimit`."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _max_connections():
            transport.abort()
        self._deadline = self.loop.call_later(HEAD_S, transport.close)

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and self._waits_for_client():
            self._deadline = self.loop.call_later(HEAD_S, self.transport.close)
        super().data_received(data)
        if not self._waits_for_client():
            self._cancel_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        super().connection_lost(exc)

    def _waits_for_client(self) -> bool:
        """For headers, or for the rest of a body that was answered before it was complete."""
        client, server = self.conn.their_state, self.conn.our_state
        return client is h11.IDLE or (client is h11.SEND_BODY and server is h11.DONE)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _TlsHandshake(asyncio.Protocol):
    """A connection during its TLS handshake. Then it is handed over to HTTP.

    asyncio's own TLS servers wait 60 s for a handshake, and uvicorn learns of a connection only after it. So a client
    that opens many connections and sends nothing would use up all file descriptors of the process.
    """

    def __init__(self, context: ssl.SSLContext, under_way: set["_TlsHandshake"], http: _HeaderDeadline) -> None:
        self._context = context
        self._under_way = under_way
        self._http = http
        self._early_data: list[bytes] = []
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self._under_way) + len(self._http.connections) >= _max_connections():
            transport.abort()
            return
        self._under_way.add(self)
        transport.pause_reading()  # until `start_tls` reads
        self._task = self._http.loop.create_task(self._start_tls(transport))

    def data_received(self, data: bytes) -> None:
        """Keeps a request that arrives together with the end of the handshake."""
        self._early_data.append(data)

    async def _start_tls(self, transport: asyncio.Transport) -> None:
        try:
            async with asyncio.timeout(HEAD_S):
                secured = await self._http.loop.start_tls(
                    transport, self, self._context, server_side=True, ssl_shutdown_timeout=UNREAD_S
                )
        except Exception as error:
            # A timeout, a network error or a TLS error: there is no client to send an answer to.
            transport.abort()
            if not isinstance(error, OSError):
                log.warning("a TLS handshake failed in an unusual way", exc_info=error)
            return
        finally:
            self._under_way.discard(self)
        if secured is not None and not secured.is_closing():
            self._hand_over(secured)

    def _hand_over(self, secured: asyncio.Transport) -> None:
        secured.set_protocol(self._http)
        self._http.connection_made(secured)
        for data in self._early_data:
            self._http.data_received(data)


def _tls_protocol(context: ssl.SSLContext) -> type[asyncio.Protocol]:
    """The class of which uvicorn makes an instance for each new connection."""
    under_way: set[_TlsHandshake] = set()

    class Secured(_TlsHandshake):
        def __init__(self, **http: Any) -> None:
            super().__init__(context, under_way, _HeaderDeadline(**http))

    return Secured


def serve(  # noqa: PLR0917
    app: FastAPI,
    host: str,
    port: int,
    on_listening: Callable[[str], None],
    stop: Event,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Returns when `stop` is set and all running requests are answered. Port 0 takes a free port. `on_listening` gets
    the URL. Raises CannotListen.
    """
    listening = _listen(host, port)
    # No access log: a request may carry a key, and its lines would be most of the log.
    server = _Server(
        uvicorn.Config(
            app,
            http=_HeaderDeadline if tls is None else _tls_protocol(tls),
            log_config=None,
            access_log=False,
            ws="none",
            timeout_graceful_shutdown=DRAIN_S,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
    )
    Thread(target=_stop_when_set, args=(server, stop), name="stop-server", daemon=True).start()
    on_listening(_url(listening, "http" if tls is None else "https"))
    server.run(sockets=[listening])


def _stop_when_set(server: uvicorn.Server, stop: Event) -> None:
    stop.wait()
    server.should_exit = True


def _max_connections() -> int:
    """Half of the files that this process may open. The other half is for the broker, the cold tier and its own
    files."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2


def _listen(host: str, port: int) -> socket.socket:
    try:
        (family, *_, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        listening = socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise CannotListen(f"cannot listen on {host} port {port}: {reason}; choose another") from error
    # Every accepted connection inherits both options. Without TCP_NODELAY the second piece of an answer waits 40 ms,
    # until the client's kernel has acknowledged the first. asyncio sets it only for sockets that name their protocol,
    # which those of `create_server` do not. TCP_USER_TIMEOUT closes a connection whose client no longer reads.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_S * 1000))
    return listening


def _url(listening: socket.socket, scheme: str) -> str:
    host, port = listening.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
