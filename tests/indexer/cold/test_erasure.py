"""The vectors of deleted posts and members leave the embedded cold tier's files in time: their shard is rewritten."""

import collections
import contextlib
import errno
import shutil
import struct
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import qdrant_edge as engine
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from indexer.brute_force import BruteColdTier
from indexer.cold.edge import shards
from indexer.cold.edge import tier as edge_tier
from indexer.cold.edge.metrics import ColdMetrics
from indexer.cold.edge.shards import Point, Shards
from indexer.cold.edge.tier import EdgeColdTier
from indexer.errors import TierUnavailable
from indexer.settings import ColdSettings
from schemas.embeddings import Vector
from schemas.ids import Kind, MemberId, Micros, PostId
from tests.kit.data.embeddings import (
    DIMENSION,
    GENERATION,
    HOUR_US,
    NOW,
    index_records,
    member_embedding,
    post_embedding,
    vectors,
)
from tests.kit.tiers import SetClock, fill, open_edge_tier, same_hits


@pytest.mark.usefixtures("small_shards")
def test_the_vector_of_a_deleted_post_leaves_the_files(tmp_path: Path) -> None:
    """Half of the time that is given after the delete, and not before; all else stays as it was."""
    plain = BruteColdTier(DIMENSION)
    fill(plain, 300)
    query = vectors(1)[0]
    with contextlib.closing(open_edge_tier(tmp_path)) as tier:
        fill(tier, 300)
        (victim,) = tier.posts([PostId("p0070")], with_vectors=True)
        assert victim is not None
        assert victim.vector is not None
        for each in (tier, plain):
            each.write("post", index_records(post_embedding("p0070", 2, deleted=True), first=300))
        tier.flush()
        tier.sweep(Micros(0))
        assert _in_files(tmp_path, victim.vector)
    with contextlib.closing(open_edge_tier(tmp_path, erase_within_s=0)) as tier:
        tier.sweep(Micros(0))
        assert not _in_files(tmp_path, victim.vector)
        assert len(list((tmp_path / "posts").iterdir())) == 5, "each shard is there once, and nothing else"
        same_hits(tier.search(query, 300), plain.search(query, 300))
        tier.write("post", index_records(post_embedding("p0070", 3, vector=victim.vector), first=301))
        assert _in_files(tmp_path, victim.vector)
        assert tier.search(victim.vector, 1).post_ids == ["p0070"]


def test_the_rewrite_of_a_large_shard_says_again_and_again_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its process is taken for one that stands still and killed, again and again, and nothing is ever erased."""
    monkeypatch.setattr(shards, "_COPY_POINTS", 10)
    with contextlib.closing(open_edge_tier(tmp_path, erase_within_s=0)) as tier:
        fill(tier, 100)
        tier.write("post", index_records(post_embedding("p0070", 2, deleted=True), first=100))
        still_to_erase: list[int] = []
        tier.sweep(Micros(0), lambda: still_to_erase.append(len(_with_erased(tmp_path))))
    assert still_to_erase[:10] == [1] * 10, "once for each 10 of 100 points"
    assert still_to_erase[-1] == 0


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("step", ["first rename", "second rename", "removal", "opening"])
def test_a_shard_whose_rewrite_fails_goes_on_and_is_rewritten_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    plain = BruteColdTier(DIMENSION)
    query = vectors(1)[0]
    with contextlib.closing(open_edge_tier(tmp_path, erase_within_s=0)) as tier:
        for each in (tier, plain):
            fill(each, 150)
        (victim,) = tier.posts([PostId("p0070")], with_vectors=True)
        assert victim is not None
        assert victim.vector is not None
        for each in (tier, plain):
            each.write("post", index_records(post_embedding("p0070", 2, deleted=True), first=300))
        with monkeypatch.context() as broken:
            _break(broken, step)
            with pytest.raises(TierUnavailable, match="for this test"):
                tier.sweep(Micros(0))
        for each in (tier, plain):
            each.write("post", index_records(post_embedding("p0071", 2), post_embedding("new"), first=301))
        tier.flush()
        same_hits(tier.search(query, 300), plain.search(query, 300))
        tier.sweep(Micros(0))
        assert not _in_files(tmp_path, victim.vector)
        same_hits(tier.search(query, 300), plain.search(query, 300))
        assert len(list((tmp_path / "posts").iterdir())) == 3, "each shard is there once, and nothing else"
    with contextlib.closing(open_edge_tier(tmp_path)) as again:
        same_hits(again.search(query, 300), plain.search(query, 300))


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("step", ["first rename", "second rename", "removal", "opening"])
def test_a_shard_that_nobody_asked_since_its_rewrite_failed_is_rewritten_by_the_next_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with contextlib.closing(open_edge_tier(tmp_path, erase_within_s=0)) as tier:
        gone = member_embedding("m")
        tier.write("member", index_records(gone, member_embedding("other", 2), member_embedding("m", 2, deleted=True)))
        with monkeypatch.context() as broken:
            _break(broken, step)
            with pytest.raises(TierUnavailable, match="for this test"):
                tier.sweep(Micros(0))
        tier.sweep(Micros(0))
        assert _with_erased(tmp_path) == set()
        assert not _in_files(tmp_path, np.frombuffer(gone.vector, "<f4"))
        assert [held and held.deleted for held in tier.members([MemberId("m"), MemberId("other")])] == [True, False]


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("step", ["first rename", "second rename", "removal", "opening"])
def test_a_shard_is_opened_again_while_another_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The first shard is closed since its rewrite failed; a search opens it between two steps of the second's."""
    points = [Point(number, vector, f"head {number}", "body") for number, vector in enumerate(vectors(100))]
    with contextlib.closing(Shards(tmp_path, DIMENSION, quantize=False)) as held:
        held.upsert(points)
        held.remove([0, 70], may_have_vectors=True)
        with monkeypatch.context() as broken:
            _break(broken, step)
            with pytest.raises(TierUnavailable, match="for this test"):
                collections.deque(held.rewrite(0))
        copying = held.rewrite(1)
        next(copying)
        assert held.get([1], vectors=False).keys() == {1}
        collections.deque(copying)
        assert set(held.pending_erasures()) == {0}
        assert held.get(range(100), vectors=False).keys() == set(range(100)) - {0, 70}
        collections.deque(held.rewrite(0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def _break(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Makes one step of a shard's rewrite fail: while it takes the place of the old one, or after."""

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "for this test")

    if step == "opening":
        # A class of the engine cannot be changed.
        monkeypatch.setattr(shards, "engine", types.SimpleNamespace(**vars(engine)))
        monkeypatch.setattr(
            shards.engine, "EdgeShard", types.SimpleNamespace(create=engine.EdgeShard.create, load=fails)
        )
        return
    failing = {"first rename": ("rename", ""), "second rename": ("rename", ".new"), "removal": ("rmtree", ".old")}
    name, suffix = failing[step]
    owner: Any = shutil if name == "rmtree" else Path
    real = getattr(owner, name)

    def sometimes(path: Path, *others: object, **options: object) -> object:
        return fails() if Path(path).suffix == suffix else real(path, *others, **options)

    monkeypatch.setattr(owner, name, sometimes)


@pytest.mark.usefixtures("small_shards")
def test_what_was_deleted_first_leaves_the_files_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both kinds and whatever the shard, when there is time for one shard in a sweep. A day is promised."""
    monkeypatch.setattr(edge_tier, "_START_REWRITES_FOR_S", 0)
    clock = SetClock()
    day_s = 24 * 3600
    opened = EdgeColdTier(tmp_path, GENERATION, DIMENSION, ColdSettings(), clock, erase_within_s=day_s)
    with contextlib.closing(opened) as tier:
        fill(tier, 100)
        tier.write("member", index_records(*(member_embedding(f"m{n}") for n in range(70))))
        for hour, kind, gone in (
            (0, "post", post_embedding("p0099", 2, deleted=True)),
            (1, "member", member_embedding("m69", 2, deleted=True)),
            (2, "post", post_embedding("p0001", 2, deleted=True)),
            (3, "member", member_embedding("m1", 2, deleted=True)),
        ):
            clock.now = Micros(NOW + hour * HOUR_US)
            tier.write(cast(Kind, kind), index_records(gone, first=1000))
        clock.now = Micros(NOW + 14 * HOUR_US)
        assert tier.oldest_pending_erasure_s() == 14 * 3600
        order = []
        for _ in range(4):
            before = _with_erased(tmp_path)
            tier.sweep(Micros(0))
            order.append(sorted(before - _with_erased(tmp_path)))
        # m1 was deleted eleven hours ago: there is time.
        assert order == [["posts/1"], ["members/1"], ["posts/0"], []]
        assert tier.oldest_pending_erasure_s() == 11 * 3600
        assert b"nearline_cold_oldest_erasure_seconds 39600.0" in _metrics(tier)
        tombstones = f'nearline_cold_tombstones{{generation="{GENERATION}",kind="post"}}'
        assert f"{tombstones} 2.0".encode() in _metrics(tier)
        tier.sweep(Micros(NOW + 24 * HOUR_US))
        assert f"{tombstones} 0.0".encode() in _metrics(tier)
    with contextlib.closing(open_edge_tier(tmp_path, erase_within_s=0)) as tier:
        tier.sweep(Micros(0))
        assert tier.oldest_pending_erasure_s() == 0


@pytest.mark.usefixtures("small_shards")
def test_a_warning_comes_before_a_deleted_vector_is_there_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SetClock()
    opened = EdgeColdTier(tmp_path, GENERATION, DIMENSION, ColdSettings(), clock, erase_within_s=24 * 3600)
    with contextlib.closing(opened) as tier, monkeypatch.context() as broken:
        tier.write("post", index_records(post_embedding("p"), post_embedding("p", 2, deleted=True)))
        tier.write("member", index_records(member_embedding("m"), member_embedding("m", 2, deleted=True)))
        _break(broken, "first rename")
        for hour, warnings in ((17, 0), (19, 1)):
            clock.now = Micros(NOW + hour * HOUR_US)
            with capture_logs() as logs, pytest.raises(TierUnavailable):
                tier.sweep(Micros(0))
            assert ["longer than kafka.erase_within_s" in line["event"] for line in logs] == [True] * warnings


@pytest.mark.usefixtures("small_shards")
def test_a_shard_that_cannot_be_rewritten_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(open_edge_tier(tmp_path, erase_within_s=0)) as tier:
        tier.write("post", index_records(post_embedding("p"), post_embedding("p", 2, deleted=True)))
        tier.write("member", index_records(member_embedding("m"), member_embedding("m", 2, deleted=True)))
        rewrite = Shards.rewrite

        def not_posts(shards_of_kind: Shards, shard_id: int) -> Iterator[None]:
            if shards_of_kind is tier._posts.shards:
                raise TierUnavailable("for this test")
            return rewrite(shards_of_kind, shard_id)

        monkeypatch.setattr(Shards, "rewrite", not_posts)
        with pytest.raises(TierUnavailable, match="for this test"):
            tier.sweep(Micros(0))
        assert _with_erased(tmp_path) == {"posts/0"}


def _with_erased(folder: Path) -> set[str]:
    return {f"{file.parent.name}/{file.stem}" for file in folder.glob("*/*.erased")}


def _metrics(tier: EdgeColdTier) -> bytes:
    registry = CollectorRegistry()
    registry.register(ColdMetrics(tier, GENERATION))
    return generate_latest(registry)


def _in_files(folder: Path, vector: Vector) -> bool:
    """As the engine's segments have it, or as its log does: CBOR, where each number has a mark of its own."""
    logged = b"".join(b"\xfa" + struct.pack(">f", number) for number in vector[:4])
    contents = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    return any(vector.tobytes() in content or logged in content for content in contents)
