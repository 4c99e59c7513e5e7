"""What only the embedded cold tier has: shards, segments, and a folder with one owner."""

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer.brute_force import BruteColdTier
from indexer.cold.edge import folder
from indexer.cold.edge.shard_search import ShardScan
from indexer.cold.edge.tier import EdgeColdTier
from indexer.errors import TierRefused, TierUnavailable
from indexer.tiers import ColdQuery, Filters
from schemas.errors import NewerForm
from schemas.forms import Form
from schemas.ids import Micros, PostId
from tests.kit.data.embeddings import (
    DIMENSION,
    NOW,
    index_records,
    post_embedding,
    vectors,
)
from tests.kit.tiers import fill, open_edge_tier, same_hits


@pytest.fixture
def tier(tmp_path: Path) -> Iterator[EdgeColdTier]:
    with contextlib.closing(open_edge_tier(tmp_path)) as edge_tier:
        yield edge_tier


@pytest.mark.usefixtures("small_shards")
def test_many_shards_answer_as_one(tier: EdgeColdTier) -> None:
    """Also where all of the best are in one shard, which is then asked for more than its share."""
    plain = BruteColdTier(DIMENSION)
    fill(tier, 900)
    fill(plain, 900)
    gone = [post_embedding(f"p{n:04}", 2, deleted=True) for n in range(0, 900, 11)]
    for each in (tier, plain):
        each.write("post", index_records(*gone, first=900))
    for query in (vectors(1)[0], vectors(1, seed=9)[0]):
        for filters in (
            Filters(),
            Filters(exclude_authors=frozenset({"m1"})),
            Filters(created_after_us=Micros(NOW + 850)),
            Filters(created_after_us=Micros(NOW + 30), exclude_authors=frozenset(f"m{n}" for n in range(1, 7))),
        ):
            for k in (1, 60, 500, 2000):
                same_hits(tier.search(query, k, filters), plain.search(query, k, filters))
            # With k = 500 each shard would be asked for all of its points at once, and none of them again.
            batch = [ColdQuery(each, k, filters) for each in (vectors(1, seed=9)[0], query) for k in (1, 60)]
            for one, hits in zip(batch, tier.search_batch(batch), strict=True):
                same_hits(hits, plain.search(one.vector_D, one.k, filters))


def test_the_vectors_of_one_member_are_scored_together(tier: EdgeColdTier, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine takes half of the time for a further query of the same call."""
    fill(tier, 40)
    alone: list[object] = []
    monkeypatch.setattr(ShardScan, "ask", lambda *arguments, **_: alone.append(arguments))
    answers = tier.search_batch([ColdQuery(query, 10) for query in vectors(3)])
    assert [len(hits.post_ids) for hits in answers] == [10] * 3
    assert alone == []


@pytest.mark.usefixtures("small_shards")
def test_what_was_written_is_there_after_a_new_start(tmp_path: Path) -> None:
    plain = BruteColdTier(DIMENSION)
    fill(plain, 300)
    with contextlib.closing(open_edge_tier(tmp_path)) as first:
        fill(first, 300)
        first.write("post", index_records(post_embedding("p0007", 2, deleted=True), first=300))
        first.flush()
    plain.write("post", index_records(post_embedding("p0007", 2, deleted=True), first=300))
    with contextlib.closing(open_edge_tier(tmp_path)) as again:
        assert again.count("post") == 299
        same_hits(again.search(vectors(1)[0], 400), plain.search(vectors(1)[0], 400))
        assert again.posts([PostId("p0007")]) == plain.posts([PostId("p0007")])
        assert sorted(again.scroll_posts()) == sorted(plain.scroll_posts())


@pytest.mark.usefixtures("small_shards")
def test_swept_points_make_room_for_new_posts(tier: EdgeColdTier, tmp_path: Path) -> None:
    for round_ in range(20):
        names = [f"r{round_}n{number}" for number in range(30)]
        tier.write("post", index_records(*(post_embedding(name, 1) for name in names)))
        tier.write("post", index_records(*(post_embedding(name, 2, deleted=True) for name in names), first=30))
        assert tier.sweep(Micros(NOW + 1)) == 30
    assert [folder.name for folder in (tmp_path / "posts").iterdir() if folder.is_dir()] == ["0"]


def test_a_second_owner_is_sent_away(tier: EdgeColdTier, tmp_path: Path) -> None:
    assert tier.count("post") == 0
    with pytest.raises(TierUnavailable, match="another owner"):
        open_edge_tier(tmp_path)


def test_a_folder_of_another_generation_or_dimension_is_refused(tmp_path: Path) -> None:
    open_edge_tier(tmp_path).close()
    with pytest.raises(TierRefused, match="other-9999aaaa"):
        open_edge_tier(tmp_path, generation="other-9999aaaa")
    with pytest.raises(TierRefused, match="32"):
        open_edge_tier(tmp_path, dimension=32)
    open_edge_tier(tmp_path).close()


def test_a_folder_of_a_newer_version_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_edge_tier(tmp_path).close()
    manifest = tmp_path / "cold.json"
    assert "form" not in json.loads(manifest.read_text()), "the version before there were forms accepts no other field"
    with monkeypatch.context() as newer:
        newer.setattr(folder, "IN_FOLDER", {"cold-tier": Form(newest=2, written=2)})
        open_edge_tier(tmp_path).close()
    assert json.loads(manifest.read_text())["form"] == 2
    with pytest.raises(NewerForm, match="has cold-tier of form 2, and this version reads them up to form 1"):
        open_edge_tier(tmp_path)
    monkeypatch.setattr(folder, "IN_FOLDER", {"cold-tier": Form(newest=2, written=1)})
    open_edge_tier(tmp_path).close()
    assert json.loads(manifest.read_text())["form"] == 2


def test_searches_and_writes_at_the_same_time(tier: EdgeColdTier) -> None:
    """A search gives only posts and scores that belong together, whatever is written meanwhile."""
    axes = np.eye(DIMENSION, dtype=np.float32)
    tier.write("post", index_records(*(post_embedding(f"p{n}", 1, vector=axes[n]) for n in range(DIMENSION))))
    failures: list[str] = []
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            hits = tier.search(axes[0], 5)
            if hits.post_ids[:1] != ["p0"] or hits.scores[0] != 1.0:
                failures.append(f"p0 was not best: {hits}")

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for revision in range(2, 40):
        tier.write(
            "post", index_records(*(post_embedding(f"p{n}", revision, vector=axes[n]) for n in range(DIMENSION)))
        )
        tier.write(
            "post", index_records(*(post_embedding(f"new{revision}-{n}", 1, vector=-axes[0]) for n in range(20)))
        )
        tier.write("post", index_records(*(post_embedding(f"new{revision}-{n}", 2, deleted=True) for n in range(20))))
        tier.sweep(Micros(NOW + 1))
        tier.flush()
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert tier.count("post") == DIMENSION
