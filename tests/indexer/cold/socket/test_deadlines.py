"""Whatever the cold process hangs in, a call to it ends when its time is over, and its late answer is nobody's."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from indexer.brute_force import BruteColdTier
from indexer.cold.deadline import Deadline
from indexer.cold.socket import client as socket_client
from indexer.cold.socket import messages as socket_messages
from indexer.cold.socket import server as socket_server
from indexer.cold.socket.client import RemoteColdTier
from indexer.cold.socket.frames import connect, send
from indexer.cold.socket.server import ColdServer
from indexer.errors import TierLate
from indexer.tiers import ColdQuery
from schemas.ids import MemberId, PostId
from tests.kit.children.cold_owner import NUM_POSTS
from tests.kit.data.embeddings import DIMENSION, index_records, post_embedding, vectors
from tests.kit.owners import Owner, cold_owner
from tests.kit.tiers import open_edge_tier
from tests.kit.waiting import until

QUERY: Final = vectors(1)[0]
TIMEOUT_S: Final = 0.2
MUCH_LATER_S: Final = 10.0
"""A call without a timeout takes 60 s here. Machines may be slow, but not that slow."""

CALLS: Final[dict[str, Callable[[RemoteColdTier], object]]] = {
    "search": lambda cold: cold.search(QUERY, 10, timeout_s=TIMEOUT_S),
    "search_batch": lambda cold: cold.search_batch([ColdQuery(QUERY, 10)] * 2, timeout_s=TIMEOUT_S),
    "position": lambda cold: cold.position(timeout_s=TIMEOUT_S),
    "posts": lambda cold: cold.posts([PostId("p1")], timeout_s=TIMEOUT_S),
    "members": lambda cold: cold.members([MemberId("m1")], timeout_s=TIMEOUT_S),
    "scroll_posts": lambda cold: next(cold.scroll_posts(timeout_s=TIMEOUT_S)),
    "count": lambda cold: cold.count("post", timeout_s=TIMEOUT_S),
    "freshness": lambda cold: cold.freshness(timeout_s=TIMEOUT_S),
    "a request that the socket cannot hold": lambda cold: cold.posts([PostId("p")] * 2_000_000, timeout_s=TIMEOUT_S),
}


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    with cold_owner(tmp_path) as running:
        yield running


@pytest.fixture
def cold(owner: Owner) -> Iterator[RemoteColdTier]:
    with contextlib.closing(RemoteColdTier(owner.path, timeout_s=60)) as tier:
        yield tier


@contextlib.contextmanager
def late_in_time() -> Iterator[None]:
    start = time.monotonic()
    with pytest.raises(TierLate, match=r"within 0\.2 s"):
        yield
    assert TIMEOUT_S <= time.monotonic() - start < MUCH_LATER_S


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "not yet connected"])
def test_a_frozen_process_makes_every_call_late_and_answers_again(
    owner: Owner, cold: RemoteColdTier, connected: bool
) -> None:
    if connected:
        assert cold.count("post") == NUM_POSTS
    with owner.frozen():
        for call in CALLS.values():
            with late_in_time():
                call(cold)
    # None of the late answers is taken for one of these.
    for number in range(20):
        assert [post and post.post_id for post in cold.posts([PostId(f"p{number}")])] == [f"p{number}"]
    hits = cold.search(QUERY, NUM_POSTS)
    assert (len(hits.post_ids), hits.position) == (NUM_POSTS, {0: NUM_POSTS})


def test_a_process_that_accepts_no_connection_makes_calls_late(owner: Owner, cold: RemoteColdTier) -> None:
    with owner.frozen(), contextlib.ExitStack() as waiting:
        with contextlib.suppress(TierLate):
            for _ in range(10 * socket_server._BACKLOG):
                waiting.enter_context(connect(owner.path, Deadline(0.5)))
        with late_in_time():
            cold.count("post", timeout_s=TIMEOUT_S)
        with pytest.raises(TierLate):
            connect(owner.path, NearlyOver(TIMEOUT_S))
    assert cold.count("post") == NUM_POSTS


class NearlyOver(Deadline):
    def left_s(self) -> float:
        return 1e-7


def test_connections_are_bounded_and_waiting_for_one_is_waiting(
    owner: Owner, cold: RemoteColdTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[socket.socket] = []

    def counted(path: Path, deadline: Deadline) -> socket.socket:
        made.append(connect(path, deadline))
        return made[-1]

    monkeypatch.setattr(socket_client, "connect", counted)
    num_late: list[None] = []

    def ask(timeout_s: float) -> None:
        try:
            cold.count("post", timeout_s=timeout_s)
        except TierLate:
            num_late.append(None)

    threads = [threading.Thread(target=ask, args=(2.0,)) for _ in range(socket_client._CONNECTIONS)]
    with owner.frozen():
        for thread in threads:
            thread.start()
        until(lambda: len(made) == socket_client._CONNECTIONS, "every connection to be in use")
        with late_in_time():
            cold.count("post", timeout_s=TIMEOUT_S)
        for thread in threads:
            thread.join()
    assert len(num_late) == len(made) == socket_client._CONNECTIONS
    assert all(connection.fileno() == -1 for connection in made), "each was thrown away"
    assert cold.count("post") == NUM_POSTS


@pytest.mark.parametrize("part", [b"", b"\0\0", b"\0\0\0\x09", b"\0\0\0\x09half"])
def test_half_an_answer_is_late_too(tmp_path: Path, part: bytes) -> None:
    path = tmp_path / "cold.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with contextlib.closing(RemoteColdTier(path, timeout_s=60)) as cold:

            def answer() -> None:
                connection, _ = listener.accept()
                connection.sendall(part)
                with connection:
                    while connection.recv(1 << 16):
                        pass

            owner = threading.Thread(target=answer)
            owner.start()
            with late_in_time():
                cold.count("post", timeout_s=TIMEOUT_S)
            # It ends because the client has hung up.
            owner.join()


def test_a_time_that_is_over_asks_nothing(owner: Owner, cold: RemoteColdTier) -> None:
    for timeout_s in (0.0, -1.0):
        with pytest.raises(TierLate):
            cold.count("post", timeout_s=timeout_s)


def test_what_nobody_waits_for_is_not_worked_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a freeze: the request has come, its client has left."""
    left = threading.Event()
    searched: list[None] = []

    class Counting(BruteColdTier):
        def count(self, *_: object, **__: object) -> int:
            searched.append(None)
            return 0

    receive = socket_server.receive

    def late(connection: socket.socket, deadline: Deadline) -> bytearray:
        frame = receive(connection, deadline)
        left.wait()
        return frame

    monkeypatch.setattr(socket_server, "receive", late)
    path = tmp_path / "cold.sock"
    with contextlib.closing(ColdServer(Counting(DIMENSION), path)) as server:
        server.start()
        request = socket_messages.encode_request(socket_messages.Count("post"))
        with connect(path, Deadline(60)) as client:
            send(client, request, Deadline(60))
        left.set()
        with contextlib.closing(RemoteColdTier(path, timeout_s=60)) as cold:
            assert cold.count("post") == 0
        until(lambda: not server._connections, "both connections to end")
    assert searched == [None], "the second client alone"


def test_a_client_that_takes_no_answer_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_server, "_SEND_TIMEOUT_S", TIMEOUT_S)
    tier = BruteColdTier(DIMENSION)
    tier.write("post", index_records(*(post_embedding(f"p{number}") for number in range(20_000))))
    path = tmp_path / "cold.sock"
    server = ColdServer(tier, path)
    server.start()
    with connect(path, Deadline(60)) as client:
        send(client, socket_messages.encode_request(socket_messages.Scroll()), Deadline(60))
        until(lambda: client.recv(1, socket.MSG_PEEK) != b"", "the answer to begin")
        start = time.monotonic()
        server.close()
        assert time.monotonic() - start < MUCH_LATER_S


def test_an_owner_that_is_busy_is_late(tmp_path: Path) -> None:
    """Within its own process the wait for other calls is bounded."""
    with contextlib.closing(open_edge_tier(tmp_path / "own")) as tier:
        with tier._lock, pytest.raises(TierLate, match=r"busy for 0\.2 s"):
            tier.search(QUERY, 1, timeout_s=TIMEOUT_S)
        assert tier.search(QUERY, 1, timeout_s=TIMEOUT_S).post_ids == []
