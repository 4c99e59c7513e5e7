"""Serves the app on a socket that is bound first, so that a free port is known before anyone is told."""

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
"""Requests in hand may take this long after a stop."""
KEEP_ALIVE_S: Final = 75
"""As long as most proxies and pools of connections keep an idle one."""
HEAD_S: Final = 10.0
"""From the first byte of a request, or the opening of a connection, to the end of the headers. Slow lines take one.
A TLS handshake may take as long again."""
UNREAD_S: Final = 30.0
"""An answer, or a part of one, that is not taken for so long is given up."""


class _Server(uvicorn.Server):
    def capture_signals(self) -> Any:
        """Signals belong to the process, which sets `stop`."""
        return nullcontext()


class _Impatient(H11Protocol):
    """uvicorn bounds only the silence between two requests: drop by drop, headers could come in for ever, and so could
    a body that is refused already. Other bodies are `request_limits.BodyLimit`'s."""

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _max_connections():
            transport.abort()
        self._due = self.loop.call_later(HEAD_S, transport.close)

    def data_received(self, data: bytes) -> None:
        if self._due is None and self._is_kept_waiting():
            self._due = self.loop.call_later(HEAD_S, self.transport.close)
        super().data_received(data)
        if not self._is_kept_waiting():
            self._wait_no_more()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def _is_kept_waiting(self) -> bool:
        """By headers, or by the rest of a body that was answered before it was whole."""
        theirs, ours = self.conn.their_state, self.conn.our_state
        return theirs is h11.IDLE or (theirs is h11.SEND_BODY and ours is h11.DONE)

    def _wait_no_more(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None


class _Handshake(asyncio.Protocol):
    """A connection until it speaks TLS; then it is handed over to HTTP.

    asyncio's own TLS servers wait 60 s for a handshake, and tell uvicorn of the connection only after it: whoever opens
    many and says nothing would take all the files of the process.
    """

    def __init__(self, context: ssl.SSLContext, under_way: set["_Handshake"], http: _Impatient) -> None:
        self._context = context
        self._under_way = under_way
        self._http = http
        self._early: list[bytes] = []
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self._under_way) + len(self._http.connections) >= _max_connections():
            transport.abort()
            return
        self._under_way.add(self)
        transport.pause_reading()  # until TLS reads
        self._task = self._http.loop.create_task(self._speak_tls(transport))

    def data_received(self, data: bytes) -> None:
        """A request that came together with the end of the handshake."""
        self._early.append(data)

    async def _speak_tls(self, transport: asyncio.Transport) -> None:
        try:
            async with asyncio.timeout(HEAD_S):
                secured = await self._http.loop.start_tls(
                    transport, self, self._context, server_side=True, ssl_shutdown_timeout=UNREAD_S
                )
        except Exception as error:
            # Of time, of the network, of TLS: nobody is there who could be told.
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
        for data in self._early:
            self._http.data_received(data)


def _secured(context: ssl.SSLContext) -> type[asyncio.Protocol]:
    """What uvicorn makes for each new connection."""
    under_way: set[_Handshake] = set()

    class Secured(_Handshake):
        def __init__(self, **http: Any) -> None:
            super().__init__(context, under_way, _Impatient(**http))

    return Secured


def serve(  # noqa: PLR0917
    app: FastAPI,
    host: str,
    port: int,
    on_listening: Callable[[str], None],
    stop: Event,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Returns when `stop` is set and what was asked is answered. Port 0 takes a free one; `on_listening` gets the URL.

    Raises CannotListen.
    """
    listening = _listen(host, port)
    # No access log: a request may carry a key, and one line for each would be most of the log.
    server = _Server(
        uvicorn.Config(
            app,
            http=_Impatient if tls is None else _secured(tls),
            log_config=None,
            access_log=False,
            ws="none",
            timeout_graceful_shutdown=DRAIN_S,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
    )
    Thread(target=_end, args=(server, stop), name="stop-server", daemon=True).start()
    on_listening(_url(listening, "http" if tls is None else "https"))
    server.run(sockets=[listening])


def _end(server: uvicorn.Server, stop: Event) -> None:
    stop.wait()
    server.should_exit = True


def _max_connections() -> int:
    """Half of the files that this process may open: the other half is for the broker, the cold tier, and its own."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2


def _listen(host: str, port: int) -> socket.socket:
    try:
        (family, *_, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        listening = socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise CannotListen(f"cannot listen on {host} port {port}: {reason}; choose another") from error
    # The kernel hands both on to every connection. Without the first, the second piece of an answer waits 40 ms for the
    # client's kernel to confirm the first piece; asyncio sets it only where a socket names its protocol, which those
    # of create_server do not. By the second it ends a connection whose other side takes nothing any more.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_S * 1000))
    return listening


def _url(listening: socket.socket, scheme: str) -> str:
    host, port = listening.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
