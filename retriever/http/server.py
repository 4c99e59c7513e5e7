"""The HTTP server. Binds the socket first, so that a port that the system has chosen is known before it is announced.

Also bounds what the app cannot see: connections, TLS handshakes, slow headers and clients that do not read.
"""

import asyncio
import os
import resource
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from contextlib import nullcontext
from typing import Any, Final, cast

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from retriever.errors import CannotListen

DRAIN_S: Final = 10
"""Running requests may take this long after a stop."""
KEEP_ALIVE_S: Final = 75
"""Most proxies and connection pools keep an idle connection for about this time."""
HEAD_S: Final = 10.0
"""Time for the headers, from the first byte of a request or from the opening of the connection. A slow line takes one
second. A TLS handshake may take the same time again."""
BACKLOG: Final = 2048
"""Connections that may wait until the event loop takes them."""
UNREAD_S: Final = 30.0
"""If a client reads nothing of its answer for this time, the connection is closed."""


class HttpServer(uvicorn.Server):
    """Call its `serve` with the socket. It ends when `should_exit` is set and all running requests are answered."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._is_up = asyncio.Event()

    def capture_signals(self) -> Any:
        """Leaves signals to the process, which sets `stop`."""
        return nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._is_up.set()

    async def also_serve(self, listening: socket.socket) -> None:
        """Answers at this socket too, until the end of `serve`. All connections count towards the same limits."""
        await self._is_up.wait()
        loop = asyncio.get_running_loop()
        self.servers.append(await loop.create_server(self._new_protocol, sock=listening, backlog=BACKLOG))

    def _new_protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


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


class _Tls(SSLProtocol):
    """A connection that speaks TLS. After the handshake HTTP takes over.

    asyncio's own TLS servers wait 60 s for a handshake, and uvicorn learns of a connection only after it. So a client
    that opens many connections and sends nothing would use up all file descriptors of the process.
    """

    def __init__(self, context: ssl.SSLContext, handshakes: set[asyncio.Future[None]], http: _HeaderDeadline) -> None:
        """`handshakes`: those that are under way."""
        self._handshakes = handshakes
        self._handshake: asyncio.Future[None] = http.loop.create_future()
        self._http = http
        super().__init__(
            http.loop,
            http,
            context,
            self._handshake,
            server_side=True,
            ssl_handshake_timeout=HEAD_S,  # type: ignore[arg-type]  # a float will do
            ssl_shutdown_timeout=UNREAD_S,
        )

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self._handshakes) + len(self._http.connections) >= _max_connections():
            transport.abort()
            return
        self._handshakes.add(self._handshake)
        self._handshake.add_done_callback(self._ended)
        super().connection_made(transport)

    def _ended(self, handshake: asyncio.Future[None]) -> None:
        self._handshakes.discard(handshake)
        if not handshake.cancelled():
            # A timeout, a network error or a TLS error: there is no client to send an answer to. asyncio would log an
            # error that nobody looks at.
            handshake.exception()


def _tls_protocol(context: ssl.SSLContext) -> type[asyncio.Protocol]:
    """The class of which uvicorn makes an instance for each new connection."""
    handshakes: set[asyncio.Future[None]] = set()

    class Secured(_Tls):
        def __init__(self, **http: Any) -> None:
            super().__init__(context, handshakes, _HeaderDeadline(**http))

    return cast(type[asyncio.Protocol], Secured)


def make_server(app: FastAPI, tls: ssl.SSLContext | None) -> HttpServer:
    # No access log: a request may carry a key, and its lines would be most of the log.
    return HttpServer(
        uvicorn.Config(
            app,
            http=_HeaderDeadline if tls is None else _tls_protocol(tls),
            log_config=None,
            access_log=False,
            ws="none",
            backlog=BACKLOG,
            timeout_graceful_shutdown=DRAIN_S,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
    )


def _max_connections() -> int:
    """Half of the files that this process may open. The other half is for the broker, the cold tier and its own
    files."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Port 0 takes a free port. `shared`: other processes of the same user may listen there too, and each gets some of
    the connections. Raises CannotListen."""
    try:
        (family, *_, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        listening = socket.create_server(address[:2], family=family, backlog=BACKLOG, reuse_port=shared)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise CannotListen(f"cannot listen on {host} port {port}: {reason}; choose another") from error
    # Every accepted connection inherits both options. Without TCP_NODELAY the second piece of an answer waits 40 ms,
    # until the client's kernel has acknowledged the first. asyncio sets it only for sockets that name their protocol,
    # which those of `create_server` do not. TCP_USER_TIMEOUT closes a connection whose client no longer reads.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_S * 1000))
    return listening


def url_of(listening: socket.socket, scheme: str) -> str:
    host, port = listening.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
