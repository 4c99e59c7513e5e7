"""The embedded cold tier for the other processes of one machine, over a Unix socket that only its user may open.

`ColdServer` runs in the process that owns the tier, `RemoteColdTier` anywhere else. They only read: the owner alone
writes. Knows frames and connections; what is in them is `wire.py`, what they mean is the tier's.
"""

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from indexer.cold import wire
from indexer.errors import IndexerError, TierRefused, TierUnavailable
from indexer.freshness import Freshness, FreshnessWindow
from indexer.tiers import NO_FILTERS, ColdReader, Filters, Hits, StoredMember, StoredPost
from schemas.embeddings import Vector
from schemas.ids import Kind, MemberId, PostId

log = structlog.get_logger(__name__)

T = TypeVar("T")

_SCROLL_PAGE: Final = 2_000
_IDLE_CONNECTIONS: Final = 16
"""Kept by one client for its next calls."""


class ColdServer:
    """One thread per connection; the tier serves many threads."""

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
        """Listens when it returns. A socket that a dead owner left is replaced: the tier's lock says who owns it."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._listener = Listener(str(self._path), "AF_UNIX", backlog=64)
        finally:
            os.umask(before)
        self._acceptor.start()

    def close(self) -> None:
        """Ends every connection; an answer under way is finished first. The tier stays open."""
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
            _hang_up(connection)
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
            # The client is gone, or the server closes.
            pass
        finally:
            with self._lock:
                self._connections.pop(connection, None)
            connection.close()

    def _answers(self, frame: bytes) -> Iterator[bytes]:
        try:
            request = wire.decode_request(frame)
            if isinstance(request, wire.Scroll):
                yield from self._pages()
            else:
                yield wire.encode_answer(self._answer(request))
        except IndexerError as error:
            yield wire.encode_failure(error)
        except Exception as error:
            log.exception("a request to the cold tier failed")
            yield wire.encode_failure(TierUnavailable(f"the cold process failed: {error}"))

    def _pages(self) -> Iterator[bytes]:
        posts = self._tier.scroll_posts()
        while page := [wire.pack_post(post) for post in islice(posts, _SCROLL_PAGE)]:
            yield wire.encode_answer(page)
        yield wire.encode_answer([])

    def _answer(self, request: wire.Request) -> Any:
        tier = self._tier
        match request:
            case wire.Search():
                vector = wire.unpack_query(request)
                return wire.pack_hits(tier.search(vector, request.k, wire.filters_of(request)))
            case wire.Posts():
                found = tier.posts(request.ids, with_vectors=request.with_vectors)
                return [None if post is None else wire.pack_post(post) for post in found]
            case wire.Members():
                return [None if one is None else wire.pack_member(one) for one in tier.members(request.ids)]
            case wire.Count():
                return tier.count(request.kind)
            case wire.AskFreshness():
                return self._freshness.summary()
            case _:
                raise TierRefused("not a request to the cold tier")


class RemoteColdTier:
    """The methods say what `ColdReader` says; TierUnavailable also where the owner is gone or silent for `timeout_s`.
    A restarted owner is found again by the next call."""

    def __init__(self, socket_path: Path, timeout_s: float) -> None:
        self._path = socket_path
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._closed = False

    def search(self, query_D: Vector, k: int, filters: Filters = NO_FILTERS) -> Hits:
        return wire.unpack_hits(self._ask(wire.search_request(query_D, k, filters), wire.Found))

    def posts(self, ids: Sequence[PostId], *, with_vectors: bool = False) -> list[StoredPost | None]:
        found = self._ask(wire.Posts(list(ids), with_vectors), list[wire.WirePost | None])
        return [None if post is None else wire.unpack_post(post) for post in found]

    def members(self, ids: Sequence[MemberId]) -> list[StoredMember | None]:
        found = self._ask(wire.Members(list(ids)), list[wire.WireMember | None])
        return [None if member is None else wire.unpack_member(member) for member in found]

    def scroll_posts(self) -> Iterator[StoredPost]:
        with self._connection() as connection:
            frame = wire.encode_request(wire.Scroll())
            while page := self._exchange(connection, frame, list[wire.WirePost]):
                yield from (wire.unpack_post(post) for post in page)
                frame = b""

    def count(self, kind: Kind) -> int:
        return self._ask(wire.Count(kind), int)

    def freshness(self) -> Freshness:
        """Of the index loop that fills the tier."""
        return self._ask(wire.AskFreshness(), Freshness)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _ask(self, request: wire.Request, shape: type[T]) -> T:
        with self._connection() as connection:
            return self._exchange(connection, wire.encode_request(request), shape)

    def _exchange(self, connection: Connection, frame: bytes, shape: type[T]) -> T:
        """An empty frame is not sent: the next answer to what was asked before."""
        try:
            if frame:
                connection.send_bytes(frame)
            if not connection.poll(self._timeout_s):
                raise TierUnavailable(f"the cold process did not answer within {self._timeout_s:g} s")
            answer = connection.recv_bytes()
        except (OSError, EOFError) as error:
            raise TierUnavailable(f"the cold process hung up: {error or 'end of file'}") from error
        return wire.decode_answer(answer, shape)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """One that no other thread uses. It is kept only after a whole answer: half a one would answer the next."""
        connection = self._take()
        whole = False
        try:
            yield connection
            whole = True
        except TierRefused:
            whole = True
            raise
        finally:
            self._give(connection, whole)

    def _take(self) -> Connection:
        while True:
            with self._lock:
                if self._closed:
                    raise TierUnavailable("this connection to the cold tier is closed")
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._connect()
            # Readable without a question: the owner is gone.
            if not _readable(connection):
                return connection
            connection.close()

    def _connect(self) -> Connection:
        try:
            return Client(str(self._path), "AF_UNIX")
        except OSError as error:
            raise TierUnavailable(f"no cold process listens at {self._path}: {error.strerror or error}") from error

    def _give(self, connection: Connection, whole: bool) -> None:
        with self._lock:
            keep = whole and not self._closed and len(self._idle) < _IDLE_CONNECTIONS
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()


def _readable(connection: Connection) -> bool:
    try:
        return connection.poll(0)
    except (OSError, EOFError):
        return True


def _hang_up(connection: Connection) -> None:
    """Wakes the thread that waits for a question; an answer that is being sent still leaves."""
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as hung:
        hung.shutdown(socket.SHUT_RD)
