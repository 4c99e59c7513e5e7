"""Serves the app on a socket that is bound first, so that a free port is known before anyone is told."""

import os
import socket
from collections.abc import Callable
from contextlib import nullcontext
from threading import Event, Thread
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from retriever.errors import CannotListen

DRAIN_S: Final = 10
"""Requests in hand may take this long after a stop."""
_KEEP_ALIVE_S: Final = 75
"""As long as most proxies and pools of connections keep an idle one."""


class _Server(uvicorn.Server):
    def capture_signals(self) -> Any:
        """Signals belong to the process, which sets `stop`."""
        return nullcontext()


def serve(app: FastAPI, host: str, port: int, on_listening: Callable[[str], None], stop: Event) -> None:
    """Returns when `stop` is set and what was asked is answered. Port 0 takes a free one; `on_listening` gets the URL.

    Raises CannotListen.
    """
    listening = _listen(host, port)
    # No access log: a request may carry a key, and one line for each would be most of the log.
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            ws="none",
            timeout_graceful_shutdown=DRAIN_S,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
    )
    Thread(target=_end, args=(server, stop), name="stop-server", daemon=True).start()
    on_listening(_url(listening))
    server.run(sockets=[listening])


def _end(server: uvicorn.Server, stop: Event) -> None:
    stop.wait()
    server.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    try:
        (family, *_, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise CannotListen(f"cannot listen on {host} port {port}: {reason}; choose another") from error


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
