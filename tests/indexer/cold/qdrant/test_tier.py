"""What only a Qdrant server has: an old owner that wakes up, a server that is away, a collection of another size."""

import socket
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import structlog.testing
from pydantic import ValidationError
from qdrant_client import QdrantClient, models

from indexer.cold.qdrant.connection import connect
from indexer.cold.qdrant.tier import QdrantColdTier
from indexer.errors import TierRefused, TierUnavailable
from indexer.settings import ColdSettings
from schemas.ids import Generation, PostId
from tests.kit.data.embeddings import DIMENSION, NOW, index_records, post_embedding, vectors
from tests.kit.qdrant_server import QdrantServer
from tests.kit.tiers import SetClock

GENERATION = Generation(f"test-{uuid.uuid4().hex[:8]}")
"""Others may test on the same server."""


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    with QdrantServer() as server, closing(connect(server.settings())) as connection:
        yield connection


def make(client: QdrantClient, dimension: int | None = DIMENSION) -> QdrantColdTier:
    tier = QdrantColdTier(ColdSettings(), GENERATION, dimension, SetClock(), client)
    tier.count("post")
    return tier


class Upserts:
    """Counts the calls that reach the server."""

    def __init__(self, client: QdrantClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        upsert = client.upsert

        def counted(name: str, points: list[Any], **options: Any) -> Any:
            self.sizes.append(len(points))
            return upsert(name, points, **options)

        monkeypatch.setattr(client, "upsert", counted)


def test_an_old_owner_that_wakes_up_overwrites_nothing(client: QdrantClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """It read the revisions before the new owner wrote, so only the server's condition can stop it."""
    old, new = make(client), make(client)
    seen_before = old._last_writes("post", {"p1", "p2"})
    new.write("post", index_records(post_embedding("p1", 1), post_embedding("p2", 1), first=10))
    new.write("post", index_records(post_embedding("p1", 3, deleted=True), post_embedding("p2", 3), first=12))
    monkeypatch.setattr(old, "_last_writes", lambda *_: seen_before)
    old.write("post", index_records(post_embedding("p1", 1), post_embedding("p2", 1), first=10))
    stored = new.posts([PostId("p1"), PostId("p2")])
    assert [(post.revision, post.deleted) for post in stored if post is not None] == [(3, True), (3, False)]
    assert new.search(vectors(1)[0], 10).post_ids == ["p2"]


def test_an_old_owner_overwrites_nothing_that_it_writes_singly(
    client: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came from another partition it writes under a condition of its own, and that must be the server's too."""
    old, new = make(client), make(client)
    new.write("post", index_records(post_embedding("p1", 1), first=1000, partition=3))
    seen_before = old._last_writes("post", {"p1"})
    new.write("post", index_records(post_embedding("p1", 3, deleted=True), first=12))
    monkeypatch.setattr(old, "_last_writes", lambda *_: seen_before)
    old.write("post", index_records(post_embedding("p1", 2), first=10))
    (stored,) = new.posts([PostId("p1")])
    assert stored is not None
    assert (stored.revision, stored.deleted) == (3, True)


@pytest.mark.parametrize("partition", [0, 3], ids=["in bulk", "singly"])
def test_an_old_owner_overwrites_no_later_record_of_the_same_revision(
    client: QdrantClient, monkeypatch: pytest.MonkeyPatch, partition: int
) -> None:
    old, new = make(client), make(client)
    new.write("post", index_records(post_embedding("p1", 1), first=5, partition=partition))
    seen_before = old._last_writes("post", {"p1"})
    mended = post_embedding("p1", 2, author="mended")
    new.write("post", index_records(mended, first=12))
    monkeypatch.setattr(old, "_last_writes", lambda *_: seen_before)
    for again in (False, True):
        old.write("post", index_records(post_embedding("p1", 2), first=10), again=again)
        assert [post and post.author_id for post in new.posts([PostId("p1")])] == ["mended"]


def test_what_is_written_again_is_one_call_for_each_partition(
    client: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = make(client)
    records = index_records(*(post_embedding(f"p{n}") for n in range(30)))
    tier.write("post", records)
    upserts = Upserts(client, monkeypatch)
    assert tier.write("post", records, again=True) == 30
    assert upserts.sizes == [30]


def test_a_batch_is_one_call_for_each_partition(client: QdrantClient, monkeypatch: pytest.MonkeyPatch) -> None:
    tier = make(client)
    upserts = Upserts(client, monkeypatch)
    first = index_records(*(post_embedding(f"a{n}") for n in range(30)), partition=0)
    second = index_records(*(post_embedding(f"b{n}") for n in range(20)), partition=1)
    tier.write("post", [record for pair in zip(first, second, strict=False) for record in pair] + first[20:])
    assert sorted(upserts.sizes) == [20, 30]
    upserts.sizes.clear()
    # After a crash the batch is read again, cut elsewhere: what is there already changes nothing.
    tier.write("post", [*first[:5], *index_records(*(post_embedding(f"a{n}", 2) for n in range(3)), first=30)])
    assert upserts.sizes == [3]
    # a2 was written at offset 32, after this batch began: it needs a condition of its own.
    upserts.sizes.clear()
    tier.write(
        "post", [*index_records(post_embedding("new"), first=31), *index_records(post_embedding("a2", 3), first=33)]
    )
    assert sorted(upserts.sizes) == [1, 1]
    assert [post and post.revision for post in tier.posts([PostId("a2"), PostId("new")])] == [3, 1]


def test_of_one_revision_a_later_record_is_written_singly_too(client: QdrantClient) -> None:
    """The stored one was written after this batch began: after a crash it was cut elsewhere."""
    tier = make(client)
    tier.write("post", index_records(post_embedding("p1", 2), first=12))
    mended = post_embedding("p1", 2, author="mended")
    batch = [*index_records(post_embedding("new"), first=11), *index_records(mended, first=15)]
    assert tier.write("post", batch) == 2
    assert [post and post.author_id for post in tier.posts([PostId("p1")])] == ["mended"]


def test_a_post_from_another_partition_is_written_under_its_own_condition(client: QdrantClient) -> None:
    tier = make(client)
    tier.write("post", index_records(post_embedding("p1", 1), first=1000, partition=0))
    tier.write("post", index_records(post_embedding("p1", 2), first=5, partition=3))
    assert [post and post.revision for post in tier.posts([PostId("p1")])] == [2]


def test_a_server_that_is_away_makes_the_tier_unavailable() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        tier = QdrantColdTier(ColdSettings(url=url, timeout_s=1), GENERATION, DIMENSION)
        with closing(tier):
            for ask in (
                lambda: tier.count("post"),
                lambda: tier.write("post", index_records(post_embedding("p1"))),
                lambda: tier.search(vectors(1)[0], 5),
                lambda: tier.sweep(NOW),
            ):
                with pytest.raises(TierUnavailable, match="the Qdrant server does not answer"):
                    ask()


def test_collections_are_made_as_the_settings_say() -> None:
    with QdrantServer() as server:
        settings = server.settings(replication=2, shards=3, graph_m=8)
        with closing(connect(settings)) as client:
            tier = QdrantColdTier(settings, GENERATION, DIMENSION, SetClock(), client)
            tier.write("post", index_records(post_embedding("p1")))
            assert tier.search(vectors(1)[0], 5).post_ids == ["p1"]
            for kind in ("posts", "members"):
                config = client.get_collection(f"nearline-{kind}-{GENERATION}").config
                assert (config.params.replication_factor, config.params.shard_number) == (2, 3)
                assert config.hnsw_config.m == 8
            # By default there is no graph, so that searches are exact.
            plain = Generation(f"{GENERATION}-plain")
            QdrantColdTier(server.settings(), plain, DIMENSION, SetClock(), client).write("post", [])
            config = client.get_collection(f"nearline-posts-{plain}").config
            assert (config.params.replication_factor, config.hnsw_config.m) == (1, 0)


def test_settings_that_come_too_late_for_a_collection_are_named(client: QdrantClient) -> None:
    make(client)
    late = ColdSettings(replication=2, shards=1, graph_m=16)
    with structlog.testing.capture_logs() as logs:
        QdrantColdTier(late, GENERATION, DIMENSION, SetClock(), client).write("post", [])
    assert [log["found"] for log in logs] == [{"cold.replication": 1, "cold.shards": 1, "cold.graph_m": 0}] * 2
    with structlog.testing.capture_logs() as logs:
        make(client)
    assert logs == []


@pytest.mark.parametrize("wrong", [{"replication": 0}, {"shards": 0}, {"graph_m": -1}])
def test_impossible_numbers_of_replicas_and_shards_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ColdSettings.model_validate(wrong)


def test_a_write_that_is_not_applied_yet_is_not_taken_for_done(
    client: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = make(client)
    waiting = models.UpdateResult(operation_id=1, status=models.UpdateStatus.ACKNOWLEDGED)
    with monkeypatch.context() as slow:
        slow.setattr(client, "upsert", lambda *_, **__: waiting)
        with pytest.raises(TierUnavailable, match="has not applied a write yet"):
            tier.write("post", index_records(post_embedding("p1")))
    assert tier.write("post", index_records(post_embedding("p1"))) == 1


def test_a_collection_of_another_dimension_is_refused(client: QdrantClient) -> None:
    make(client)
    with pytest.raises(TierUnavailable, match=f"nearline-posts-{GENERATION} does not hold vectors of 32"):
        make(client, dimension=32)


def test_a_reader_needs_no_dimension_and_makes_nothing(client: QdrantClient) -> None:
    with pytest.raises(TierUnavailable):
        make(client, dimension=None)
    make(client).write("post", index_records(post_embedding("p1")))
    assert make(client, dimension=None).search(vectors(1)[0], 5).post_ids == ["p1"]


def test_without_an_address_there_is_no_server() -> None:
    with pytest.raises(TierRefused, match=r"set cold\.url"):
        QdrantColdTier(ColdSettings(), GENERATION, DIMENSION)
