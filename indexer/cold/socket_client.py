"""The client's side of the cold tier's Unix socket: the embedded tier of another process, to be read.

Owns the connections to the socket. What is in a frame is `socket_messages.py`, who answers is `socket_server.py`.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Final, TypeVar

from indexer.cold import socket_messages as messages
from indexer.errors import TierRefused, TierUnavailable
from indexer.freshness import Freshness
from indexer.tiers import NO_FILTERS, Filters, Hits, StoredMember, StoredPost
from schemas.embeddings import Vector
from schemas.ids import Kind, MemberId, PostId

T = TypeVar("T")

_IDLE_CONNECTIONS: Final = 16
"""A client keeps so many open connections for its next calls."""


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
        return messages.unpack_hits(self._ask(messages.search_request(query_D, k, filters), messages.PackedHits))

    def posts(self, ids: Sequence[PostId], *, with_vectors: bool = False) -> list[StoredPost | None]:
        found = self._ask(messages.Posts(list(ids), with_vectors), list[messages.PackedPost | None])
        return [None if post is None else messages.unpack_post(post) for post in found]

    def members(self, ids: Sequence[MemberId]) -> list[StoredMember | None]:
        found = self._ask(messages.Members(list(ids)), list[messages.PackedMember | None])
        return [None if member is None else messages.unpack_member(member) for member in found]

    def scroll_posts(self) -> Iterator[StoredPost]:
        with self._connection() as connection:
            frame = messages.encode_request(messages.Scroll())
            while page := self._exchange(connection, frame, list[messages.PackedPost]):
                yield from (messages.unpack_post(post) for post in page)
                frame = b""

    def count(self, kind: Kind) -> int:
        return self._ask(messages.Count(kind), int)

    def freshness(self) -> Freshness:
        """Of the index loop that fills the tier."""
        return self._ask(messages.AskFreshness(), Freshness)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _ask(self, request: messages.Request, shape: type[T]) -> T:
        with self._connection() as connection:
            return self._exchange(connection, messages.encode_request(request), shape)

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
        return messages.decode_answer(answer, shape)

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
