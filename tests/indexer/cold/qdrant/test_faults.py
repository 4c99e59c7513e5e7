"""A Qdrant server whose answers are late, cut off or errors: each is an outage, and afterwards all goes on. Who it is
talked to, and with which key, is settings."""

import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from pydantic import SecretStr, ValidationError

from indexer.cold.qdrant.tier import QdrantColdTier
from indexer.errors import TierLate, TierRefused, TierUnavailable
from indexer.settings import ColdSettings
from indexer.tiers import ColdQuery
from schemas.ids import Generation, MemberId, PostId
from tests.kit.certificates import certificate
from tests.kit.data.embeddings import DIMENSION, index_records, post_embedding, vectors
from tests.kit.qdrant_server import HOST, KEY, Fault, QdrantServer
from tests.kit.running import frozen
from tests.kit.tiers import SetClock
from tests.kit.waiting import until

TIMEOUT_S: Final = 1
SHORT_S: Final = 0.2


def _late(server: QdrantServer, _: grpc.ServicerContext) -> None:
    server.wait(2 * TIMEOUT_S)


def _cut(server: QdrantServer, _: grpc.ServicerContext) -> None:
    server.cut()
    server.wait(0.5)


def _says(code: grpc.StatusCode, *metadata: tuple[str, str]) -> Fault:
    def fault(_: QdrantServer, context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata(metadata)
        context.abort(code, "for this test")

    return fault


OUTAGES: Final = {
    "late": _late,
    "cut": _cut,
    "internal": _says(grpc.StatusCode.INTERNAL),
    "unavailable": _says(grpc.StatusCode.UNAVAILABLE),
    "busy": _says(grpc.StatusCode.RESOURCE_EXHAUSTED, ("retry-after", "1")),
}
REFUSALS: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: r"refuses the request \(INVALID_ARGUMENT: for this test\)",
    grpc.StatusCode.PERMISSION_DENIED: r"refuses the API key \(PERMISSION_DENIED: for this test\); set cold.api_key",
}


@pytest.fixture
def server() -> Iterator[QdrantServer]:
    with QdrantServer() as running:
        yield running


@contextmanager
def connected(server: QdrantServer, **over: Any) -> Iterator[QdrantColdTier]:
    settings = server.settings(**{"timeout_s": TIMEOUT_S, **over})
    with closing(QdrantColdTier(settings, _new_generation(), DIMENSION, SetClock())) as tier:
        yield tier


def _new_generation() -> Generation:
    """One that nobody has used before, in case the server is a real one."""
    return Generation(f"test-{uuid.uuid4().hex[:8]}")


@pytest.mark.parametrize("call", ["Points/Get", "Points/Upsert"])
@pytest.mark.parametrize("fault", OUTAGES)
def test_an_outage_is_waited_out_and_nothing_is_lost(server: QdrantServer, fault: str, call: str) -> None:
    """In the midst of a write; the same write succeeds once the server answers again."""
    batch = index_records(post_embedding("p1"), post_embedding("p2"))
    with connected(server) as tier:
        assert tier.count("post") == 0
        server.faults = [(call, OUTAGES[fault])]
        with pytest.raises(TierUnavailable, match="the Qdrant server does not answer as it should"):
            tier.write("post", batch)
        if fault == "cut":
            server.stop()
            server.start()
        _written(tier, batch)


READS: Final[dict[str, Callable[[QdrantColdTier], object]]] = {
    "search": lambda tier: tier.search(vectors(1)[0], 10, timeout_s=SHORT_S),
    "search_batch": lambda tier: tier.search_batch([ColdQuery(vectors(1)[0], 10)], timeout_s=SHORT_S),
    "posts": lambda tier: tier.posts([PostId("p1")], timeout_s=SHORT_S),
    "members": lambda tier: tier.members([MemberId("m1")], timeout_s=SHORT_S),
    "scroll_posts": lambda tier: next(tier.scroll_posts(timeout_s=SHORT_S)),
    "count": lambda tier: tier.count("post", timeout_s=SHORT_S),
}


def test_a_frozen_server_makes_every_read_late_and_answers_again() -> None:
    """The whole process stands still, so that even its connection does."""
    command = [sys.executable, "-m", "tests.kit.qdrant_server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        settings = ColdSettings(
            url=f"http://{HOST}:1", grpc_port=int(process.stdout.readline()), api_key=SecretStr(KEY), timeout_s=60
        )
        with closing(QdrantColdTier(settings, _new_generation(), DIMENSION, SetClock())) as tier:
            tier.write("post", index_records(post_embedding("p1")))
            with frozen(process.pid):
                for read in READS.values():
                    start = time.monotonic()
                    with pytest.raises(TierLate, match="does not answer as it should"):
                        read(tier)
                    assert SHORT_S <= time.monotonic() - start < 10
            until(lambda: _hits(tier) == ["p1"], "the server to be back")
        process.communicate("")


def _hits(tier: QdrantColdTier) -> list[PostId]:
    with suppress(TierUnavailable):
        return tier.search(vectors(1)[0], 10, timeout_s=5).post_ids
    return []


def test_a_read_that_takes_long_is_only_late_for_those_who_do_not_wait(server: QdrantServer) -> None:
    with connected(server) as tier:
        tier.write("post", index_records(post_embedding("p1")))
        for timeout_s, is_late in ((SHORT_S, True), (30, False)):
            server.faults = [("Points/QueryBatch", lambda server, _: server.wait(4 * SHORT_S))]
            with pytest.raises(TierLate) if is_late else nullcontext():
                assert tier.search(vectors(1)[0], 10, timeout_s=timeout_s).post_ids == ["p1"]


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refused_request_is_named_and_no_records_fault(server: QdrantServer, code: grpc.StatusCode) -> None:
    batch = index_records(post_embedding("p1"), post_embedding("p2"))
    with connected(server) as tier:
        server.faults = [("Points/Upsert", _says(code))]
        with pytest.raises(TierUnavailable, match=REFUSALS[code]):
            tier.write("post", batch)
        _written(tier, batch)


def test_the_key_is_sent_and_not_repeated(server: QdrantServer) -> None:
    with connected(server, api_key="wrong") as tier:
        with pytest.raises(
            TierUnavailable, match=r"refuses the API key \(UNAUTHENTICATED: .*set cold\.api_key"
        ) as caught:
            tier.count("post")
        assert "wrong" not in str(caught.value)


def test_over_tls_only_a_server_that_the_ca_file_vouches_for_is_believed(tmp_path: Path) -> None:
    certified = certificate(tmp_path, HOST)
    stranger = certificate(tmp_path, "stranger")
    with QdrantServer(certified) as server:
        with connected(server, ca_file=certified.ca_file) as tier:
            _written(tier, index_records(post_embedding("p1"), post_embedding("p2")))
        for ca_file in (None, stranger.ca_file):
            with connected(server, ca_file=ca_file) as tier, pytest.raises(TierUnavailable, match="UNAVAILABLE"):
                tier.count("post")
        with (
            pytest.raises(TierRefused, match=r"cold\.ca_file: .*gone.pem cannot be read"),
            connected(server, ca_file=tmp_path / "gone.pem"),
        ):
            pass


def test_settings_of_a_server_are_checked_and_its_key_never_prints() -> None:
    with pytest.raises(ValidationError, match="url"):
        ColdSettings(url="qdrant:6333")
    assert KEY not in repr(ColdSettings(url="https://qdrant:6333", api_key=SecretStr(KEY)))


def _written(tier: QdrantColdTier, batch: Any) -> None:
    """It may have been applied by the call that failed; and the client takes a second to try a cut connection again."""

    def written() -> bool:
        with suppress(TierUnavailable):
            tier.write("post", batch)
            return True
        return False

    until(written, "the write to succeed", 20)
    assert tier.count("post") == 2
    assert [post and post.revision for post in tier.posts([PostId("p1"), PostId("p2")])] == [1, 1]
