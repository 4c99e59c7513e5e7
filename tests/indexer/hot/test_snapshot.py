"""Snapshots of the hot tier: damaged files, changes while one is written, and crashes."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from indexer.errors import SnapshotOfNewerForm, SnapshotRefused
from indexer.hot import snapshot_file
from indexer.hot.snapshot_file import Chunk, Header
from indexer.hot.tier import MatrixHotTier
from indexer.id_table import IdTable
from indexer.settings import HotSettings
from indexer.tiers import NO_FILTERS, HotQuery, SnapshotMoment
from schemas.ids import Offset, Partition, PostId
from tests.kit.data.embeddings import DIMENSION, NOW, hot_records, post_embedding, vectors

MOMENT: Final = SnapshotMoment({Partition(0): Offset(5000)}, NOW)
NUM_POSTS: Final = 5000
QUERY: Final = vectors(1)[0]


def make(capacity: int = 10_000) -> MatrixHotTier:
    return MatrixHotTier(DIMENSION, HotSettings(capacity=capacity, device="cpu"), IdTable())


def filled() -> MatrixHotTier:
    tier = make()
    posts = [post_embedding(f"p{n}", 1, vector=vector) for n, vector in enumerate(vectors(NUM_POSTS, seed=3))]
    tier.apply(hot_records(*posts))
    return tier


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("snapshot")
    filled().save(folder, MOMENT).result(20)
    return (folder / "hot.snapshot").read_bytes()


def test_a_damaged_snapshot_is_refused_and_the_tier_stays_empty(whole: bytes, tmp_path: Path) -> None:
    places = [*range(0, 150, 7), *np.linspace(150, len(whole) - 1, 40).astype(int).tolist()]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        (tmp_path / "hot.snapshot").write_bytes(damaged)
        tier = make()
        with pytest.raises(SnapshotRefused, match="the snapshot"):
            tier.load(tmp_path)
        assert (tier.count(), tier.floor()) == (0, {})
        assert np.count_nonzero(tier._ids._references) == 0
    tier.apply(hot_records(post_embedding("p1")))
    assert tier.count() == 1


def test_a_snapshot_of_a_newer_version_is_told_from_a_damaged_one(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "hot.snapshot").write_bytes(whole.replace(b"tier 1\n", b"tier 12\n", 1))
    with pytest.raises(SnapshotOfNewerForm, match="is of form 12, and this version reads them up to form 1"):
        make().load(tmp_path)


def test_a_snapshot_that_ends_too_early_or_too_late_is_refused(whole: bytes, tmp_path: Path) -> None:
    for content in (b"", whole[:5], whole[:25], whole[:200], whole[:-1], whole + b"x"):
        (tmp_path / "hot.snapshot").write_bytes(content)
        with pytest.raises(SnapshotRefused, match="the snapshot"):
            make().load(tmp_path)


def test_a_snapshot_that_does_not_fit_is_refused(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "hot.snapshot").write_bytes(whole)
    with pytest.raises(SnapshotRefused, match="a snapshot of 5000 posts; this tier holds at most 4999"):
        make(capacity=4999).load(tmp_path)


def test_a_snapshot_is_of_the_moment_when_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every post changes or goes while it is written."""
    tier = filled()
    tier.begin({Partition(0): Offset(100)})
    go_on = threading.Event()
    write = snapshot_file.write

    def write_later(folder: Path, header: Header, chunks: Iterator[Chunk]) -> None:
        assert go_on.wait(20)
        write(folder, header, chunks)

    monkeypatch.setattr(snapshot_file, "write", write_later)
    saved = tier.save(tmp_path, MOMENT)
    posts = [post_embedding(f"p{n}", 2, deleted=n % 2 == 0) for n in range(200, NUM_POSTS)]
    tier.apply(hot_records(*posts[:3000], first=NUM_POSTS))
    tier.begin({Partition(0): Offset(3000)})
    tier.expire(NOW)
    assert not saved.done()
    go_on.set()
    saved.result(20)
    loaded = make()
    assert loaded.load(tmp_path) == MOMENT
    assert loaded.floor() == {0: 100}
    held = loaded.posts([PostId(f"p{n}") for n in range(NUM_POSTS)], with_vectors=True)
    assert held[:100] == [None] * 100
    for post, vector in zip(held[100:], vectors(NUM_POSTS, seed=3)[100:], strict=True):
        assert post is not None
        assert (post.revision, post.deleted) == (1, False)
        np.testing.assert_array_equal(post.vector, vector)


def test_what_a_snapshot_kept_back_is_freed_afterwards(tmp_path: Path) -> None:
    tier = filled()
    for round_number in range(3):
        tier.save(tmp_path, MOMENT).result(20)
        changed = [post_embedding(f"p{n}", 2 + round_number) for n in range(NUM_POSTS)]
        tier.apply(hot_records(*changed, first=NUM_POSTS * (1 + round_number)))
    assert tier._contents._pool.num_used < 3 * NUM_POSTS


def test_the_older_snapshot_stays_if_the_new_one_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = filled()
    tier.save(tmp_path, MOMENT).result(20)

    def no_space(_descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    failed = tier.save(tmp_path, SnapshotMoment({}, NOW))
    with pytest.raises(OSError, match="no space"):
        failed.result(20)
    assert [file.name for file in tmp_path.iterdir()] == ["hot.snapshot"]
    assert make().load(tmp_path) == MOMENT
    tier.apply(hot_records(post_embedding("p1", 2), first=NUM_POSTS))
    assert tier.posts([PostId("p1")])[0] is not None


def test_a_loaded_tier_goes_on_like_the_one_that_was_saved(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "hot.snapshot").write_bytes(whole)
    loaded, original = make(), filled()
    loaded.load(tmp_path)
    for tier in (loaded, original):
        tier.apply(hot_records(post_embedding("new"), post_embedding("p7", 2), first=NUM_POSTS, at_us=NOW + 1))
        tier.begin({Partition(0): Offset(60)})
    assert loaded.floor() == original.floor()
    assert sorted(loaded.scroll_posts()) == sorted(original.scroll_posts())
    query = HotQuery(QUERY, 50, NO_FILTERS, np.empty(0, np.int32))
    answers = [tier._ids.ids(tier.search([query])[0].numbers) for tier in (loaded, original)]
    assert answers[0] == answers[1]
