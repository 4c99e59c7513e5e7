"""The cold tier over its socket: who may open it, what a client sees when the owner goes, many clients at once."""

import contextlib
import errno
import os
import socket
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from indexer.brute_force import BruteColdTier
from indexer.cold.deadline import Deadline
from indexer.cold.socket import messages
from indexer.cold.socket.client import RemoteColdTier
from indexer.cold.socket.frames import connect, receive, send
from indexer.cold.socket.server import ColdServer
from indexer.errors import TierLate, TierRefused, TierUnavailable
from indexer.freshness import Freshness, FreshnessWindow
from indexer.tiers import ColdHits, ColdQuery, Filters
from schemas.ids import MemberId, PostId
from tests.kit.data.embeddings import DIMENSION, index_records, member_embedding, post_embedding, vectors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sub" / "cold.sock"


@pytest.fixture
def owned() -> BruteColdTier:
    tier = BruteColdTier(DIMENSION)
    tier.write("post", index_records(*(post_embedding(f"p{number}") for number in range(5000))))
    tier.write("member", index_records(member_embedding("m1", acted=("p1",))))
    return tier


@pytest.fixture
def remote(path: Path) -> Iterator[RemoteColdTier]:
    with contextlib.closing(RemoteColdTier(path, timeout_s=20)) as tier:
        yield tier


@contextlib.contextmanager
def serving(tier: BruteColdTier, path: Path, freshness: FreshnessWindow | None = None) -> Iterator[None]:
    with contextlib.closing(ColdServer(tier, path, freshness)) as server:
        server.start()
        yield


def test_only_its_user_may_open_the_socket(owned: BruteColdTier, path: Path) -> None:
    with serving(owned, path):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert not path.exists()


def test_without_an_owner_the_tier_is_unavailable_and_comes_back(
    owned: BruteColdTier, path: Path, remote: RemoteColdTier
) -> None:
    with pytest.raises(TierUnavailable, match="no cold process listens"):
        remote.count("post")
    for _ in range(2):
        with serving(owned, path):
            assert remote.count("post") == 5000
        with pytest.raises(TierUnavailable):
            remote.count("post")


def test_a_socket_that_a_killed_owner_left_is_replaced(
    owned: BruteColdTier, path: Path, remote: RemoteColdTier
) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(TierUnavailable, match="no cold process listens"):
        remote.count("post")
    with serving(owned, path):
        assert remote.count("post") == 5000


def test_a_scroll_comes_in_pages_and_may_be_left(owned: BruteColdTier, path: Path, remote: RemoteColdTier) -> None:
    with serving(owned, path):
        assert len({stored.post_id for stored in remote.scroll_posts()}) == 5000
        pages = remote.scroll_posts()
        assert next(pages).post_id
        assert remote.count("member") == 1
        del pages
        assert remote.count("post") == 5000


def test_freshness_is_the_index_loops(owned: BruteColdTier, path: Path, remote: RemoteColdTier) -> None:
    window = FreshnessWindow(clock=lambda: 5.0)
    window.add([1.0, 2.0, 3.0])
    with serving(owned, path, window):
        assert remote.freshness() == window.summary()
    with serving(owned, path):
        assert remote.freshness() == Freshness(None, None, 0)


def test_filters_and_floats_travel_unchanged(owned: BruteColdTier, path: Path, remote: RemoteColdTier) -> None:
    filters = Filters(frozenset({"en"}), None, frozenset({"m9"}), frozenset({"p1"}))
    with serving(owned, path):
        there, here = remote.search(vectors(1)[0], 2048, filters), owned.search(vectors(1)[0], 2048, filters)
        assert there.post_ids == here.post_ids
        assert there.scores.tobytes() == here.scores.tobytes()
        assert there.revisions.tolist() == here.revisions.tolist()


def test_a_fault_of_the_owner_is_unavailable_not_a_hang(
    owned: BruteColdTier, path: Path, remote: RemoteColdTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> list[ColdHits]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(owned, "search_batch", broken)
    with serving(owned, path):
        with pytest.raises(TierUnavailable, match="a bug"):
            remote.search(vectors(1)[0], 5)
        assert remote.count("post") == 5000


def test_an_owner_that_is_silent_is_unavailable_after_the_time_out(owned: BruteColdTier, path: Path) -> None:
    called, answer = threading.Event(), threading.Event()

    class Slow(BruteColdTier):
        def search_batch(self, queries: Sequence[ColdQuery], *, timeout_s: float | None = None) -> list[ColdHits]:
            called.set()
            answer.wait()
            return owned.search_batch(queries)

    with serving(Slow(DIMENSION), path), contextlib.closing(RemoteColdTier(path, timeout_s=0.05)) as hasty:
        with pytest.raises(TierLate, match=r"within 0\.05 s"):
            hasty.search(vectors(1)[0], 1)
        assert called.wait(10)
        answer.set()
        # The late answer must not be taken for the next one.
        with contextlib.suppress(TierUnavailable):
            assert hasty.count("post") == 0


def test_many_threads_share_one_client(owned: BruteColdTier, path: Path, remote: RemoteColdTier) -> None:
    wrong: list[str] = []

    def ask(own_number: int) -> None:
        for _ in range(30):
            stored = remote.posts([PostId(f"p{own_number}")])[0]
            if stored is None or stored.post_id != f"p{own_number}":
                wrong.append(f"asked for p{own_number}, got {stored}")
            if remote.members([MemberId("m1")])[0] is None:
                wrong.append("m1 is missing")

    with serving(owned, path):
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_closed_client_says_so(owned: BruteColdTier, path: Path, remote: RemoteColdTier) -> None:
    with serving(owned, path):
        remote.close()
        with pytest.raises(TierUnavailable, match="is closed"):
            remote.count("post")


def test_without_free_file_descriptors_it_pauses_and_without_threads_it_hangs_up(
    owned: BruteColdTier, path: Path, remote: RemoteColdTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    class Exhausted:
        def accept(self) -> None:
            tries.append("accept")
            raise OSError(errno.EMFILE, "Too many open files")

    def pause(_: float) -> None:
        tries.append("pause")
        if len(tries) == 6:
            server._listener = listener

    with contextlib.closing(ColdServer(owned, path)) as server:
        server.start()
        assert server._listener is not None
        listener, server._listener = server._listener, Exhausted()  # type: ignore[assignment]
        monkeypatch.setattr(server._closing, "wait", pause)
        assert remote.count("post") == 5000, "the acceptor waited for this one already"
        remote.close()
        start = threading.Thread.start
        monkeypatch.setattr(threading.Thread, "start", _no_thread)
        with connect(path, Deadline(60)) as refused:
            assert refused.recv(1) == b""
        monkeypatch.setattr(threading.Thread, "start", start)
        with contextlib.closing(RemoteColdTier(path, timeout_s=20)) as other:
            assert other.count("post") == 5000
    assert tries == ["accept", "pause"] * 3


def _no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_what_is_no_request_is_answered_and_the_server_lives(
    owned: BruteColdTier, path: Path, remote: RemoteColdTier
) -> None:
    with serving(owned, path):
        with connect(path, Deadline(60)) as stranger:
            send(stranger, b"hello", Deadline(60))
            assert b"not a request" in receive(stranger, Deadline(60))
        assert remote.count("post") == 5000


@pytest.mark.parametrize(
    "request_of_old",
    [
        {"type": "flush"},
        {"type": "sweep", "older_than_us": 1},
        {"type": "write_posts", "records": []},
        {"type": "write_members", "records": []},
    ],
    ids=lambda request: request["type"],
)
def test_nobody_writes_over_the_socket(
    owned: BruteColdTier, path: Path, monkeypatch: pytest.MonkeyPatch, request_of_old: dict[str, object]
) -> None:
    """A second writer would break the order of revisions."""
    for name in ("write", "flush", "sweep"):
        monkeypatch.setattr(owned, name, lambda *_: pytest.fail("a client wrote"))
    with serving(owned, path), connect(path, Deadline(60)) as stranger:
        send(stranger, msgspec.msgpack.encode(request_of_old), Deadline(60))
        with pytest.raises(TierRefused, match="not a request to the cold tier"):
            messages.decode_answer(receive(stranger, Deadline(60)), int)


def test_a_length_that_is_none_ends_that_connection_alone(
    owned: BruteColdTier, path: Path, remote: RemoteColdTier
) -> None:
    with serving(owned, path):
        with connect(path, Deadline(60)) as stranger:
            stranger.sendall(b"\xff\xff\xff\xff")
            assert stranger.recv(1) == b""
        assert remote.count("post") == 5000
