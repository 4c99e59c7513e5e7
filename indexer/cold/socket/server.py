"""The owner's side of the cold tier's Unix socket: other processes of this machine read the embedded tier through it.

Only the user who started the owner may open the socket. Clients can only read the tier; the owner alone writes. Owns
the connections and their threads. `messages.py` knows what is in a frame, `client.py` is the clients'
side.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final

import structlog

from indexer.cold.deadline import NEVER, Deadline
from indexer.cold.socket import messages
from indexer.cold.socket.frames import connect, peek, receive, send
from indexer.errors import IndexerError, TierRefused, TierUnavailable
from indexer.freshness import FreshnessWindow
from indexer.tiers import ColdReader

log = structlog.get_logger(__name__)

_SCROLL_PAGE: Final = 2_000
_BACKLOG: Final = 64
_ACCEPT_AGAIN_S: Final = 0.1
_SEND_TIMEOUT_S: Final = 10.0
"""A client that takes no answer for so long is hung up on, so that it cannot hold up the end of this process."""


class ColdServer:
    """Serves each connection in a thread of its own, so the tier is called from many threads."""

    def __init__(self, tier: ColdReader, socket_path: Path, freshness: FreshnessWindow | None = None) -> None:
        self._tier = tier
        self._path = socket_path
        self._freshness = freshness or FreshnessWindow()
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._acceptor = threading.Thread(target=self._accept, name="cold-server", daemon=True)
        self._closing = threading.Event()

    def start(self) -> None:
        """The server listens when this returns. Replaces the socket of a dead owner. It must be dead, because this
        process holds the lock of the tier's folder."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        previous_umask = os.umask(0o177)
        try:
            self._listener.bind(str(self._path))
        finally:
            os.umask(previous_umask)
        self._listener.listen(_BACKLOG)
        self._acceptor.start()

    def close(self) -> None:
        """Ends every connection. An answer that is being sent is sent to its end. Leaves the tier open."""
        self._closing.set()
        if self._listener is None:
            return
        with suppress(TierUnavailable):
            # Wakes the acceptor.
            connect(self._path, Deadline(_SEND_TIMEOUT_S)).close()
        self._acceptor.join()
        self._listener.close()
        self._path.unlink(missing_ok=True)
        with self._lock:
            threads = list(self._connections.items())
        for connection, _ in threads:
            _shut_down_reading(connection)
        for _, thread in threads:
            thread.join()

    def _accept(self) -> None:
        assert self._listener is not None
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                # Such as no free file descriptor. Without the pause this thread would do nothing but try again.
                log.warning("a connection to the cold tier failed", error=str(error))
                self._closing.wait(_ACCEPT_AGAIN_S)
                continue
            thread = threading.Thread(target=self._serve, args=(connection,), name="cold-connection", daemon=True)
            with self._lock:
                self._connections[connection] = thread
            try:
                thread.start()
            except RuntimeError as error:  # the system has no further thread; others may end
                log.warning("a connection to the cold tier failed", error=str(error))
                with self._lock:
                    del self._connections[connection]
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        try:
            while not self._closing.is_set():
                frame = receive(connection, NEVER)
                if peek(connection) == b"":
                    # The client did not wait. After this process stood still there may be many such requests.
                    break
                for answer in self._answers(frame):
                    send(connection, answer, Deadline(_SEND_TIMEOUT_S))
        except TierUnavailable:
            # The client is gone or takes no answers, or this server is closing.
            pass
        finally:
            with self._lock:
                self._connections.pop(connection, None)
            connection.close()

    def _answers(self, frame: bytearray) -> Iterator[bytes]:
        try:
            request = messages.decode_request(frame)
            if isinstance(request, messages.Scroll):
                yield from self._pages()
            else:
                yield messages.encode_answer(self._answer(request))
        except IndexerError as error:
            yield messages.encode_failure(error)
        except Exception as error:
            log.exception("a request to the cold tier failed")
            yield messages.encode_failure(TierUnavailable(f"the cold process failed: {error}"))

    def _pages(self) -> Iterator[bytes]:
        posts = self._tier.scroll_posts()
        while page := [messages.pack_post(post) for post in islice(posts, _SCROLL_PAGE)]:
            yield messages.encode_answer(page)
        yield messages.encode_answer([])

    def _answer(self, request: messages.Request) -> Any:
        tier, timeout_s = self._tier, request.timeout_s
        match request:
            case messages.Search():
                found = tier.search_batch(messages.queries_of(request), timeout_s=timeout_s)
                return [messages.pack_hits(hits) for hits in found]
            case messages.AskPosition():
                return dict(tier.position(timeout_s=timeout_s))
            case messages.Posts():
                posts = tier.posts(request.ids, with_vectors=request.with_vectors, timeout_s=timeout_s)
                return [None if post is None else messages.pack_post(post) for post in posts]
            case messages.Members():
                members = tier.members(request.ids, timeout_s=timeout_s)
                return [None if member is None else messages.pack_member(member) for member in members]
            case messages.Count():
                return tier.count(request.kind, timeout_s=timeout_s)
            case messages.AskFreshness():
                return self._freshness.summary()
            case _:
                raise TierRefused("not a request to the cold tier")


def _shut_down_reading(connection: socket.socket) -> None:
    """Wakes the thread that waits for the next request. An answer that is being sent still reaches the client."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RD)
