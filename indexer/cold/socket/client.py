"""The client's side of the cold tier's Unix socket: reads the embedded tier that another process owns.

Owns the connections to the socket. Every call keeps its deadline, in whatever the owner hangs: a connection that is not
accepted, a socket that is full, an answer that does not come. `messages.py` knows what is in a frame,
`server.py` answers.
"""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from indexer.cold.deadline import Deadline
from indexer.cold.socket import messages
from indexer.cold.socket.frames import connect, peek, receive, send
from indexer.errors import TierRefused, TierUnavailable
from indexer.freshness import Freshness
from indexer.tiers import NO_FILTERS, ColdHits, ColdQuery, Filters, Offsets, StoredMember, StoredPost
from schemas.embeddings import Vector
from schemas.ids import Kind, MemberId, Offset, Partition, PostId

T = TypeVar("T")

_CONNECTIONS: Final = 32
"""A client has at most this many connections. The owner has a thread for each, and works on one request at a time."""


class RemoteColdTier:
    """Implements `ColdReader`. The methods also raise TierUnavailable if no owner runs, and TierLate if it does not
    answer within `timeout_s`. After a restart of the owner, the next call connects again."""

    def __init__(self, socket_path: Path, timeout_s: float) -> None:
        """`timeout_s` is for calls that bring none of their own."""
        self._path = socket_path
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._idle: list[socket.socket] = []
        self._closed = False
        self._free = threading.Semaphore(_CONNECTIONS)

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
        deadline = self._deadline(timeout_s)
        with self._connection(deadline) as connection:
            send(connection, messages.encode_request(messages.Scroll()), deadline)
            while page := _answer(connection, list[messages.PackedPost], deadline):
                yield from (messages.unpack_post(post) for post in page)
                deadline = self._deadline(timeout_s)

    def count(self, kind: Kind, *, timeout_s: float | None = None) -> int:
        return self._ask(messages.Count(kind), int, timeout_s)

    def freshness(self, *, timeout_s: float | None = None) -> Freshness:
        """The freshness of the index loop that fills the tier."""
        return self._ask(messages.AskFreshness(), Freshness, timeout_s)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _ask(self, request: messages.Request, body_type: type[T], timeout_s: float | None) -> T:
        deadline = self._deadline(timeout_s)
        request.timeout_s = deadline.seconds
        with self._connection(deadline) as connection:
            send(connection, messages.encode_request(request), deadline)
            return _answer(connection, body_type, deadline)

    def _deadline(self, timeout_s: float | None) -> Deadline:
        return Deadline(self._timeout_s if timeout_s is None else timeout_s)

    @contextmanager
    def _connection(self, deadline: Deadline) -> Iterator[socket.socket]:
        """A connection that no other thread uses. It is reused only if its last answer was read to the end. Otherwise
        the rest of that answer would be taken for the answer to the next request."""
        if not self._free.acquire(timeout=deadline.left_s()):
            raise deadline.missed()
        try:
            connection = self._take(deadline)
            fully_read = False
            try:
                yield connection
                fully_read = True
            except TierRefused:
                fully_read = True
                raise
            finally:
                self._give_back(connection, fully_read)
        finally:
            self._free.release()

    def _take(self, deadline: Deadline) -> socket.socket:
        while True:
            with self._lock:
                if self._closed:
                    raise TierUnavailable("this connection to the cold tier is closed")
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return connect(self._path, deadline)
            # Nothing was asked on an idle connection, so there is nothing to read unless the owner has closed it.
            if peek(connection) is None:
                return connection
            connection.close()

    def _give_back(self, connection: socket.socket, reusable: bool) -> None:
        with self._lock:
            keep = reusable and not self._closed
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()


def _answer(connection: socket.socket, body_type: type[T], deadline: Deadline) -> T:
    return messages.decode_answer(receive(connection, deadline), body_type)
