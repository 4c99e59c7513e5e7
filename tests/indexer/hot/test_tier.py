"""What a search of the hot tier sees while the tier changes."""

import threading

import numpy as np
import pytest

from indexer.hot.matrix import ScannedSlots
from indexer.hot.slot_table import Mask
from indexer.hot.tier import MatrixHotTier
from indexer.settings import HotSettings
from indexer.tiers import Filters
from schemas.embeddings import Vector
from schemas.ids import PostId
from tests.kit.data.embeddings import DIMENSION, NOW, post_embedding, vectors
from tests.kit.tiers import SetClock


def make(capacity: int = 100) -> MatrixHotTier:
    return MatrixHotTier(DIMENSION, HotSettings(capacity=capacity, device="cpu"), SetClock())


def test_a_search_sees_the_posts_as_they_were_when_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """All posts change and one goes while it scans: it gives the old ones, with their own scores and revisions."""
    tier = make()
    query = vectors(1)[0]
    tier.upsert([post_embedding(f"p{n}", 1, vector=query) for n in range(5)])
    scan = tier._matrix.scan

    def meanwhile(query_D: Vector, k: int, mask_S: Mask) -> ScannedSlots:
        monkeypatch.setattr(tier._matrix, "scan", scan)
        tier.upsert([post_embedding(f"p{n}", 2, vector=-query) for n in range(4)])
        tier.upsert([post_embedding("p4", 2, deleted=True), post_embedding("p5", 1, vector=query)])
        return scan(query_D, k, mask_S)

    monkeypatch.setattr(tier._matrix, "scan", meanwhile)
    before = tier.search(query, 10)
    assert before.post_ids == ["p0", "p1", "p2", "p3", "p4"]
    assert before.revisions == [1] * 5
    np.testing.assert_allclose(before.scores, 1.0, atol=1e-5)
    after = tier.search(query, 10)
    assert after.post_ids == ["p5", "p0", "p1", "p2", "p3"]
    assert after.revisions == [1, 2, 2, 2, 2]


def test_writes_wait_for_searches_only_when_all_spare_slots_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    tier = make(capacity=10)
    scanning, go_on = threading.Event(), threading.Event()
    scan = tier._matrix.scan

    def slow(query_D: Vector, k: int, mask_S: Mask) -> ScannedSlots:
        scanning.set()
        go_on.wait()
        return scan(query_D, k, mask_S)

    monkeypatch.setattr(tier._matrix, "scan", slow)
    tier.upsert([post_embedding("p0", 1)])
    reader = threading.Thread(target=tier.search, args=(vectors(1)[0], 5))
    reader.start()
    assert scanning.wait(10)
    for revision in range(2, 200):
        tier.upsert([post_embedding("p0", revision)])
    writer = threading.Thread(
        target=lambda: [tier.upsert([post_embedding("p0", revision)]) for revision in range(200, 500)]
    )
    writer.start()
    writer.join(0.2)
    assert writer.is_alive(), "a slot was reused while a search looked at it"
    go_on.set()
    for thread in (reader, writer):
        thread.join(10)
    assert tier.revisions([PostId("p0")]) == [499]


def test_searches_during_many_changes_are_whole() -> None:
    """Every hit has the score of the revision that it names, and live posts are always found, once."""
    tier = make(capacity=300)
    axes = np.eye(DIMENSION, dtype=np.float32)
    steady = [post_embedding(f"s{n:02}", 1, vector=axes[n]) for n in range(DIMENSION)]
    tier.upsert(steady)
    failures: list[str] = []
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            hits = tier.search(axes[0], 400, Filters(exclude_authors=frozenset({"nobody"})))
            if len(set(hits.post_ids)) != len(hits.post_ids):
                failures.append("a post came twice")
            if sum(name.startswith("s") for name in hits.post_ids) != DIMENSION:
                failures.append("a steady post was missing")
            for name, score, revision in zip(hits.post_ids, hits.scores, hits.revisions, strict=True):
                if name.startswith("c") and round(float(score)) != (1 if revision % 2 else -1):
                    failures.append(f"{name} revision {revision} has the score {score} of another")

    readers = [threading.Thread(target=search) for _ in range(2)]
    for reader in readers:
        reader.start()
    for revision in range(1, 60):
        sign = 1 if revision % 2 else -1
        tier.upsert([post_embedding(f"c{n}", revision, vector=sign * axes[0]) for n in range(100)])
        tier.upsert([post_embedding(f"d{revision - 1}-{n}", 2, deleted=True) for n in range(50)])
        tier.upsert([post_embedding(f"d{revision}-{n}", 1, vector=axes[1]) for n in range(50)])
    stop.set()
    for reader in readers:
        reader.join()
    assert failures == []


def test_few_posts_are_scanned_quickly_in_a_large_tier() -> None:
    """The mask ends with the highest slot in use."""
    tier = make(capacity=50_000)
    tier.upsert([post_embedding(f"p{n}", created_at_us=NOW + n) for n in range(10)])
    with tier._slots.reading(Filters()) as mask:
        assert len(mask) == 10


def test_a_free_slot_holds_no_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once no search looks at it any more, and unless another post has it by then."""
    tier = make()
    tier.upsert([post_embedding("gone"), post_embedding("updated"), post_embedding("kept")])
    scan = tier._matrix.scan

    def meanwhile(query_D: Vector, k: int, mask_S: Mask) -> ScannedSlots:
        tier.upsert([post_embedding("gone", 2, deleted=True), post_embedding("updated", 2)])
        tier.expire(NOW)
        return scan(query_D, k, mask_S)

    monkeypatch.setattr(tier._matrix, "scan", meanwhile)
    assert len(tier.search(vectors(1)[0], 5).post_ids) == 3
    assert _num_vectors(tier) == 4
    tier.expire(NOW)
    assert _num_vectors(tier) == 2
    tier.upsert([post_embedding("new")])
    tier.expire(NOW)
    assert _num_vectors(tier) == 3


def _num_vectors(tier: MatrixHotTier) -> int:
    return int(np.count_nonzero(tier._matrix.get(np.arange(10)).any(axis=1)))
