"""The owner's side of the cold tier's Unix socket: other processes of this machine read the embedded tier through it.

Only the user who started the owner may open the socket. Clients can only read the tier; the owner alone writes. Owns
the connections and their threads. `socket_messages.py` knows what is in a frame, `socket_client.py` is the clients'
side.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Final

import structlog

from indexer.cold import socket_messages as messages
from indexer.errors import IndexerError, TierRefused, TierUnavailable
from indexer.freshness import FreshnessWindow
from indexer.tiers import ColdReader

log = structlog.get_logger(__name__)

_SCROLL_PAGE: Final = 2_000


class ColdServer:
    """Serves each connection in a thread of its own, so the tier is called from many threads."""

    def __init__(self, tier: ColdReader, socket_path: Path, freshness: FreshnessWindow | None = None) -> None:
        self._tier = tier
        self._path = socket_path
        self._freshness = freshness or FreshnessWindow()
        self._listener: Listener | None = None
        self._lock = threading.Lock()
        self._connections: dict[Connection, threading.Thread] = {}
        self._acceptor = threading.Thread(target=self._accept, name="cold-server", daemon=True)
        self._closing = threading.Event()

    def start(self) -> None:
        """The server listens when this returns. Replaces the socket of a dead owner. It must be dead, because this
        process holds the lock of the tier's folder."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        previous_umask = os.umask(0o177)
        try:
            self._listener = Listener(str(self._path), "AF_UNIX", backlog=64)
        finally:
            os.umask(previous_umask)
        self._acceptor.start()

    def close(self) -> None:
        """Ends every connection. An answer that is being sent is sent to its end. Leaves the tier open."""
        self._closing.set()
        if self._listener is None:
            return
        with suppress(OSError, EOFError):
            # Wakes the acceptor.
            Client(str(self._path), "AF_UNIX").close()
        self._acceptor.join()
        self._listener.close()
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
                connection = self._listener.accept()
            except OSError as error:
                log.warning("a connection to the cold tier failed", error=str(error))
                continue
            thread = threading.Thread(target=self._serve, args=(connection,), name="cold-connection", daemon=True)
            with self._lock:
                self._connections[connection] = thread
            thread.start()

    def _serve(self, connection: Connection) -> None:
        try:
            while not self._closing.is_set():
                for answer in self._answers(connection.recv_bytes()):
                    connection.send_bytes(answer)
        except (OSError, EOFError):
            # The client is gone, or this server is closing.
            pass
        finally:
            with self._lock:
                self._connections.pop(connection, None)
            connection.close()

    def _answers(self, frame: bytes) -> Iterator[bytes]:
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
        tier = self._tier
        match request:
            case messages.Search():
                return [messages.pack_hits(hits) for hits in tier.search_batch(messages.queries_of(request))]
            case messages.AskPosition():
                return dict(tier.position())
            case messages.Posts():
                posts = tier.posts(request.ids, with_vectors=request.with_vectors)
                return [None if post is None else messages.pack_post(post) for post in posts]
            case messages.Members():
                members = tier.members(request.ids)
                return [None if member is None else messages.pack_member(member) for member in members]
            case messages.Count():
                return tier.count(request.kind)
            case messages.AskFreshness():
                return self._freshness.summary()
            case _:
                raise TierRefused("not a request to the cold tier")


def _shut_down_reading(connection: Connection) -> None:
    """Wakes the thread that waits for the next request. An answer that is being sent still reaches the client."""
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        duplicate.shutdown(socket.SHUT_RD)
