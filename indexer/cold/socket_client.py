"""The client's side of the cold tier's Unix socket: reads the embedded tier that another process owns.

Owns the connections to the socket. `socket_messages.py` knows what is in a frame, `socket_server.py` answers.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Final, TypeVar

from indexer.cold import socket_messages as messages
from indexer.errors import TierLate, TierRefused, TierUnavailable
from indexer.freshness import Freshness
from indexer.tiers import NO_FILTERS, ColdHits, ColdQuery, Filters, Offsets, StoredMember, StoredPost
from schemas.embeddings import Vector
from schemas.ids import Kind, MemberId, Offset, Partition, PostId

T = TypeVar("T")

_IDLE_CONNECTIONS: Final = 16
"""A client keeps at most this many open connections for its next calls."""


class RemoteColdTier:
    """Implements `ColdReader`. The methods also raise TierUnavailable if no owner runs, or if it does not answer within
    `timeout_s`. After a restart of the owner, the next call connects again."""

    def __init__(self, socket_path: Path, timeout_s: float) -> None:
        self._path = socket_path
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._closed = False

    def search(
        self, query_D: Vector, k: int, filters: Filters = NO_FILTERS, *, timeout_s: float | None = None
    ) -> ColdHits:
        return self.search_batch([ColdQuery(query_D, k, filters)], timeout_s=timeout_s)[0]

    def search_batch(self, queries: Sequence[ColdQuery], *, timeout_s: float | None = None) -> list[ColdHits]:
        request = messages.search_request(queries)
        return [messages.unpack_hits(hits) for hits in self._ask(request, list[messages.PackedHits], timeout_s)]

    def position(self, *, timeout_s: float | None = None) -> Offsets:
        return self._ask(messages.AskPosition(), dict[Partition, Offset], timeout_s)

    def posts(
        self, ids: Sequence[PostId], *, with_vectors: bool = False, timeout_s: float | None = None
    ) -> list[StoredPost | None]:
        posts = self._ask(messages.Posts(list(ids), with_vectors), list[messages.PackedPost | None], timeout_s)
        return [None if post is None else messages.unpack_post(post) for post in posts]

    def members(self, ids: Sequence[MemberId], *, timeout_s: float | None = None) -> list[StoredMember | None]:
        members = self._ask(messages.Members(list(ids)), list[messages.PackedMember | None], timeout_s)
        return [None if member is None else messages.unpack_member(member) for member in members]

    def scroll_posts(self, *, timeout_s: float | None = None) -> Iterator[StoredPost]:
        with self._connection() as connection:
            frame = messages.encode_request(messages.Scroll())
            while page := self._exchange(connection, frame, list[messages.PackedPost], timeout_s):
                yield from (messages.unpack_post(post) for post in page)
                frame = b""

    def count(self, kind: Kind, *, timeout_s: float | None = None) -> int:
        return self._ask(messages.Count(kind), int, timeout_s)

    def freshness(self) -> Freshness:
        """The freshness of the index loop that fills the tier."""
        return self._ask(messages.AskFreshness(), Freshness)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _ask(self, request: messages.Request, body_type: type[T], timeout_s: float | None = None) -> T:
        with self._connection() as connection:
            return self._exchange(connection, messages.encode_request(request), body_type, timeout_s)

    def _exchange(self, connection: Connection, frame: bytes, body_type: type[T], timeout_s: float | None) -> T:
        """Sends the frame and reads one answer. With an empty frame nothing is sent, and the next answer to the
        previous request is read."""
        try:
            if frame:
                connection.send_bytes(frame)
            seconds = self._timeout_s if timeout_s is None else timeout_s
            if not connection.poll(seconds):
                raise TierLate(f"the cold process did not answer within {seconds:g} s")
            answer = connection.recv_bytes()
        except (OSError, EOFError) as error:
            raise TierUnavailable(f"the cold process hung up: {error or 'end of file'}") from error
        return messages.decode_answer(answer, body_type)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """A connection that no other thread uses. It is reused only if its last answer was read to the end. Otherwise
        the rest of that answer would be taken for the answer to the next request."""
        connection = self._take()
        fully_read = False
        try:
            yield connection
            fully_read = True
        except TierRefused:
            fully_read = True
            raise
        finally:
            self._give_back(connection, fully_read)

    def _take(self) -> Connection:
        while True:
            with self._lock:
                if self._closed:
                    raise TierUnavailable("this connection to the cold tier is closed")
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._connect()
            # Nothing was asked on an idle connection, so it is readable only if the owner has closed it.
            if not _is_readable(connection):
                return connection
            connection.close()

    def _connect(self) -> Connection:
        try:
            return Client(str(self._path), "AF_UNIX")
        except OSError as error:
            raise TierUnavailable(f"no cold process listens at {self._path}: {error.strerror or error}") from error

    def _give_back(self, connection: Connection, reusable: bool) -> None:
        with self._lock:
            keep = reusable and not self._closed and len(self._idle) < _IDLE_CONNECTIONS
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()


def _is_readable(connection: Connection) -> bool:
    try:
        return connection.poll(0)
    except (OSError, EOFError):
        return True
