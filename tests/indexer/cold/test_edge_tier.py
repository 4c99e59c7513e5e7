"""What only the embedded cold tier has: shards, segments, one owner, and a folder that survives a kill."""

import collections
import contextlib
import errno
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
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
from indexer.cold import edge_tier, shard_folders, shards
from indexer.cold.edge_tier import EdgeColdTier
from indexer.cold.metrics import ColdMetrics
from indexer.cold.shards import Point, Shards
from indexer.errors import TierRefused, TierUnavailable
from indexer.settings import ColdSettings
from indexer.tiers import Filters
from schemas.embeddings import Vector
from schemas.ids import Generation, Kind, MemberId, Micros, PostId
from tests.kit.children import cold_tier_on_full_disk, cold_writer
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
from tests.kit.tiers import SetClock, same_hits


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several shards and quantised segments with a few hundred points."""
    monkeypatch.setattr(shards, "SHARD_POINTS", 64)
    monkeypatch.setattr(shards, "_SEGMENT_POINTS", 32)
    monkeypatch.setattr(shards, "_MIN_INDEXED_POINTS", 10)


@pytest.fixture
def tier(tmp_path: Path) -> Iterator[EdgeColdTier]:
    with contextlib.closing(open_tier(tmp_path)) as made:
        yield made


def open_tier(
    folder: Path, generation: str = GENERATION, dimension: int = DIMENSION, erase_within_s: float = 3600
) -> EdgeColdTier:
    made_for = Generation(generation), dimension
    return EdgeColdTier(folder, *made_for, ColdSettings(), SetClock(), erase_within_s=erase_within_s)


def fill(tier: EdgeColdTier | BruteColdTier, count: int) -> None:
    """Posts whose best neighbours of the first query all lie in one shard."""
    far = vectors(count)
    far[:64] = far[0] + 0.3 * far[:64]
    far /= np.linalg.norm(far, axis=1, keepdims=True)
    made = [
        post_embedding(f"p{n:04}", vector=one, author=f"m{n % 7}", created_at_us=NOW + n) for n, one in enumerate(far)
    ]
    for first in range(0, count, 50):
        tier.write("post", index_records(*made[first : first + 50], first=first))


@pytest.mark.usefixtures("small_shards")
def test_many_shards_answer_as_one(tier: EdgeColdTier) -> None:
    """Also where all of the best are in one shard, which is then asked for more than its share."""
    plain = BruteColdTier(DIMENSION)
    fill(tier, 900)
    fill(plain, 900)
    gone = [post_embedding(f"p{n:04}", 2, deleted=True) for n in range(0, 900, 11)]
    for one in (tier, plain):
        one.write("post", index_records(*gone, first=900))
    for query in (vectors(1)[0], vectors(1, seed=9)[0]):
        for filters in (
            Filters(),
            Filters(exclude_authors=frozenset({"m1"})),
            Filters(created_after_us=Micros(NOW + 850)),
            Filters(created_after_us=Micros(NOW + 30), exclude_authors=frozenset(f"m{n}" for n in range(1, 7))),
        ):
            for k in (1, 60, 500, 2000):
                same_hits(tier.search(query, k, filters), plain.search(query, k, filters))


@pytest.mark.usefixtures("small_shards")
def test_what_was_written_is_there_after_a_new_start(tmp_path: Path) -> None:
    plain = BruteColdTier(DIMENSION)
    fill(plain, 300)
    with contextlib.closing(open_tier(tmp_path)) as first:
        fill(first, 300)
        first.write("post", index_records(post_embedding("p0007", 2, deleted=True), first=300))
        first.flush()
    plain.write("post", index_records(post_embedding("p0007", 2, deleted=True), first=300))
    with contextlib.closing(open_tier(tmp_path)) as again:
        assert again.count("post") == 299
        same_hits(again.search(vectors(1)[0], 400), plain.search(vectors(1)[0], 400))
        assert again.posts([PostId("p0007")]) == plain.posts([PostId("p0007")])
        assert sorted(again.scroll_posts()) == sorted(plain.scroll_posts())


@pytest.mark.usefixtures("small_shards")
def test_a_flush_leaves_nothing_to_the_engines_log(tmp_path: Path) -> None:
    """A power cut may take the log, which the engine writes without waiting for the disk. What was flushed is there
    without it, in every shard of both kinds; what was not is why this test can fail."""
    posts, members = [f"p{n}" for n in range(150)], [f"m{n}" for n in range(70)]
    with contextlib.closing(open_tier(tmp_path / "cold")) as tier:
        tier.write("post", index_records(*(post_embedding(name) for name in posts)))
        tier.write("member", index_records(*(member_embedding(name) for name in members)))
        assert _after_a_power_cut(tmp_path) == (0, 0)
        tier.flush()
        assert _after_a_power_cut(tmp_path) == (150, 70)
        tier.write("post", index_records(*(post_embedding(name, 2, deleted=True) for name in posts[::2])))
        tier.write("post", index_records(post_embedding("late")))
        tier.flush()
        assert _after_a_power_cut(tmp_path) == (76, 70)


def _after_a_power_cut(folder: Path) -> tuple[int, int]:
    """Posts and members that a start finds in what the disk has, without the engine's logs."""
    with tempfile.TemporaryDirectory(dir=folder) as left:
        on_disk = Path(left) / "cold"
        shutil.copytree(folder / "cold", on_disk, ignore=shutil.ignore_patterns("open-*", "closed-*"))
        with contextlib.closing(open_tier(on_disk)) as tier:
            found = {stored.post_id for stored in tier.scroll_posts()}
            assert tier.count("post") == len(found)
            return len(found), tier.count("member")


@pytest.mark.usefixtures("small_shards")
def test_a_power_cut_between_two_flushes_leaves_no_post_twice(tmp_path: Path) -> None:
    """p80 leaves its number in the second shard and gets one in the first, which alone is flushed."""
    second, before = tmp_path / "cold" / "posts" / "1", tmp_path / "before"
    first_text, third_text = vectors(2, seed=3)
    with contextlib.closing(open_tier(tmp_path / "cold")) as tier:
        tier.write("post", index_records(*(post_embedding(f"p{n}", vector=first_text) for n in range(100))))
        tier.flush()
        shutil.copytree(second, before)
        tier.write(
            "post", index_records(post_embedding("p80", 2, deleted=True), post_embedding("p10", 2, deleted=True))
        )
        assert tier.sweep(Micros(NOW + 1)) == 2
        tier.write("post", index_records(post_embedding("other"), post_embedding("p80", 3, vector=third_text)))
        tier.flush()
    shutil.rmtree(second)
    before.rename(second)
    for _ in range(2):
        with contextlib.closing(open_tier(tmp_path / "cold", erase_within_s=0)) as tier:
            assert tier.count("post") == 99, "p10 is gone, and the record of other is read again"
            assert [one and one.revision for one in tier.posts([PostId("p80")])] == [3]
            assert tier.search(third_text, 1).post_ids == ["p80"]
            assert sorted(tier.search(first_text, 200).post_ids) == sorted(one.post_id for one in tier.scroll_posts())
            tier.flush()
    with contextlib.closing(open_tier(tmp_path / "cold", erase_within_s=0)) as tier:
        tier.write("post", index_records(post_embedding("p80", 4, deleted=True)))
        assert "p80" not in tier.search(first_text, 200).post_ids
        assert tier.count("post") == 98


@pytest.mark.usefixtures("small_shards")
def test_swept_points_make_room_for_new_posts(tier: EdgeColdTier, tmp_path: Path) -> None:
    for round_ in range(20):
        names = [f"r{round_}n{number}" for number in range(30)]
        tier.write("post", index_records(*(post_embedding(name, 1) for name in names)))
        tier.write("post", index_records(*(post_embedding(name, 2, deleted=True) for name in names), first=30))
        assert tier.sweep(Micros(NOW + 1)) == 30
    assert [folder.name for folder in (tmp_path / "posts").iterdir() if folder.is_dir()] == ["0"]


@pytest.mark.usefixtures("small_shards")
def test_the_vector_of_a_deleted_post_leaves_the_files(tmp_path: Path) -> None:
    """Half of the time that is given after the delete, and not before; all else stays as it was."""
    plain = BruteColdTier(DIMENSION)
    fill(plain, 300)
    query = vectors(1)[0]
    with contextlib.closing(open_tier(tmp_path)) as tier:
        fill(tier, 300)
        (victim,) = tier.posts([PostId("p0070")], with_vectors=True)
        assert victim is not None
        assert victim.vector is not None
        for one in (tier, plain):
            one.write("post", index_records(post_embedding("p0070", 2, deleted=True), first=300))
        tier.flush()
        tier.sweep(Micros(0))
        assert _in_files(tmp_path, victim.vector)
    with contextlib.closing(open_tier(tmp_path, erase_within_s=0)) as tier:
        tier.sweep(Micros(0))
        assert not _in_files(tmp_path, victim.vector)
        assert len(list((tmp_path / "posts").iterdir())) == 5, "each shard is there once, and nothing else"
        same_hits(tier.search(query, 300), plain.search(query, 300))
        tier.write("post", index_records(post_embedding("p0070", 3, vector=victim.vector), first=301))
        assert _in_files(tmp_path, victim.vector)
        assert tier.search(victim.vector, 1).post_ids == ["p0070"]


def test_the_renewal_of_a_large_shard_says_again_and_again_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its process is taken for one that stands still and killed, again and again, and nothing is ever erased."""
    monkeypatch.setattr(shards, "_COPIED_POINTS", 10)
    with contextlib.closing(open_tier(tmp_path, erase_within_s=0)) as tier:
        fill(tier, 100)
        tier.write("post", index_records(post_embedding("p0070", 2, deleted=True), first=100))
        still_to_erase: list[int] = []
        tier.sweep(Micros(0), lambda: still_to_erase.append(len(_with_erased(tmp_path))))
    assert still_to_erase[:10] == [1] * 10, "once for each 10 of 100 points"
    assert still_to_erase[-1] == 0


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("step", ["first rename", "second rename", "removal", "opening"])
def test_a_shard_whose_renewal_fails_goes_on_and_is_renewed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    plain = BruteColdTier(DIMENSION)
    query = vectors(1)[0]
    with contextlib.closing(open_tier(tmp_path, erase_within_s=0)) as tier:
        for one in (tier, plain):
            fill(one, 150)
        (victim,) = tier.posts([PostId("p0070")], with_vectors=True)
        assert victim is not None
        assert victim.vector is not None
        for one in (tier, plain):
            one.write("post", index_records(post_embedding("p0070", 2, deleted=True), first=300))
        with monkeypatch.context() as broken:
            _break(broken, step)
            with pytest.raises(TierUnavailable, match="for this test"):
                tier.sweep(Micros(0))
        for one in (tier, plain):
            one.write("post", index_records(post_embedding("p0071", 2), post_embedding("new"), first=301))
        tier.flush()
        same_hits(tier.search(query, 300), plain.search(query, 300))
        tier.sweep(Micros(0))
        assert not _in_files(tmp_path, victim.vector)
        same_hits(tier.search(query, 300), plain.search(query, 300))
        assert len(list((tmp_path / "posts").iterdir())) == 3, "each shard is there once, and nothing else"
    with contextlib.closing(open_tier(tmp_path)) as again:
        same_hits(again.search(query, 300), plain.search(query, 300))


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("step", ["first rename", "second rename", "removal", "opening"])
def test_a_shard_that_nobody_asked_since_its_renewal_failed_is_renewed_by_the_next_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with contextlib.closing(open_tier(tmp_path, erase_within_s=0)) as tier:
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
    """The first shard is closed since its renewal failed; a search opens it between two steps of the second's."""
    points = [Point(number, vector, f"head {number}", "body") for number, vector in enumerate(vectors(100))]
    with contextlib.closing(Shards(tmp_path, DIMENSION, quantize=False)) as held:
        held.upsert(points)
        held.remove([0, 70], with_vectors=True)
        with monkeypatch.context() as broken:
            _break(broken, step)
            with pytest.raises(TierUnavailable, match="for this test"):
                collections.deque(held.rewrite(0))
        copying = held.rewrite(1)
        next(copying)
        assert held.get([1], vectors=False).keys() == {1}
        collections.deque(copying)
        assert set(held.erased_since()) == {0}
        assert held.get(range(100), vectors=False).keys() == set(range(100)) - {0, 70}
        collections.deque(held.rewrite(0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def test_a_copy_that_is_not_whole_takes_no_shards_place(tmp_path: Path) -> None:
    new, current = tmp_path / "0.new", tmp_path / "0"
    for folder in (new, current):
        folder.mkdir()
    (current / "edge_config.json").write_text("whole")
    with pytest.raises(FileNotFoundError, match=r"edge_config\.json"):
        shard_folders.swap(new, current)
    assert [path.name for path in current.iterdir()] == ["edge_config.json"]
    (new / "edge_config.json").write_text("new")
    shard_folders.swap(new, current)
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
    assert (current / "edge_config.json").read_text() == "new"


def _break(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Makes one step of a shard's renewal fail: while it takes the place of the old one, or after."""

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
    monkeypatch.setattr(edge_tier, "_REWRITE_S", 0)
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
        assert tier.oldest_erasure_s() == 14 * 3600
        order = []
        for _ in range(4):
            before = _with_erased(tmp_path)
            tier.sweep(Micros(0))
            order.append(sorted(before - _with_erased(tmp_path)))
        # m1 was deleted eleven hours ago: there is time.
        assert order == [["posts/1"], ["members/1"], ["posts/0"], []]
        assert tier.oldest_erasure_s() == 11 * 3600
        assert b"nearline_cold_oldest_erasure_seconds 39600.0" in _metrics(tier)
    with contextlib.closing(open_tier(tmp_path, erase_within_s=0)) as tier:
        tier.sweep(Micros(0))
        assert tier.oldest_erasure_s() == 0


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
            assert ["longer than kafka.erase_within_s" in one["event"] for one in logs] == [True] * warnings


@pytest.mark.usefixtures("small_shards")
def test_a_shard_that_cannot_be_renewed_keeps_no_other_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(open_tier(tmp_path, erase_within_s=0)) as tier:
        tier.write("post", index_records(post_embedding("p"), post_embedding("p", 2, deleted=True)))
        tier.write("member", index_records(member_embedding("m"), member_embedding("m", 2, deleted=True)))
        rewrite = Shards.rewrite

        def not_posts(held: Shards, place: int) -> Iterator[None]:
            if held is tier._posts.shards:
                raise TierUnavailable("for this test")
            return rewrite(held, place)

        monkeypatch.setattr(Shards, "rewrite", not_posts)
        with pytest.raises(TierUnavailable, match="for this test"):
            tier.sweep(Micros(0))
        assert _with_erased(tmp_path) == {"posts/0"}


def _with_erased(folder: Path) -> set[str]:
    return {f"{file.parent.name}/{file.stem}" for file in folder.glob("*/*.erased")}


def _metrics(tier: EdgeColdTier) -> bytes:
    registry = CollectorRegistry()
    registry.register(ColdMetrics(tier))
    return generate_latest(registry)


@pytest.mark.parametrize("killed", ["while it copies", "between the two names", "before the old one is removed"])
def test_a_shard_is_whole_wherever_its_renewal_is_killed(tmp_path: Path, killed: str) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "data").write_text("whole")
    (tmp_path / "0.new").mkdir()
    if killed != "while it copies":
        (tmp_path / "0").rename(tmp_path / "0.old")
    if killed == "before the old one is removed":
        (tmp_path / "0.new").rename(tmp_path / "0")
        (tmp_path / "0" / "data").write_text("whole")
        (tmp_path / "0.old" / "data").write_text("old")
    shard_folders.recover(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
    assert (tmp_path / "0" / "data").read_text() == "whole"


def test_a_second_owner_is_sent_away(tier: EdgeColdTier, tmp_path: Path) -> None:
    assert tier.count("post") == 0
    with pytest.raises(TierUnavailable, match="another owner"):
        open_tier(tmp_path)


def test_a_folder_of_another_generation_or_dimension_is_refused(tmp_path: Path) -> None:
    open_tier(tmp_path).close()
    with pytest.raises(TierRefused, match="other-9999aaaa"):
        open_tier(tmp_path, generation="other-9999aaaa")
    with pytest.raises(TierRefused, match="32"):
        open_tier(tmp_path, dimension=32)
    open_tier(tmp_path).close()


def test_a_record_that_is_repeated_after_a_start_mends_what_a_kill_left_half_written(tmp_path: Path) -> None:
    """A kill within the engine's write may leave a new revision beside an old vector."""
    whole = post_embedding("p1", 2)
    with contextlib.closing(open_tier(tmp_path)) as first:
        first.write("post", index_records(post_embedding("p1", 2, vector=vectors(1, seed=77)[0])))
        first.flush()
    with contextlib.closing(open_tier(tmp_path)) as again:
        again.write("post", index_records(whole))
        stored = again.posts([PostId("p1")], with_vectors=True)[0]
        assert stored is not None
        assert stored.vector is not None
        np.testing.assert_array_equal(stored.vector, np.frombuffer(whole.vector, "<f4"))
        assert again.write("post", index_records(whole)) == 0


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


@pytest.mark.usefixtures("small_shards")
def test_a_kill_loses_nothing_that_was_flushed(tmp_path: Path) -> None:
    """Killed while it writes, twice on one folder; then the batch under way is read again."""
    names = [PostId(f"p{number}") for number in range(cold_writer.NAMES)]
    plain = BruteColdTier(DIMENSION, SetClock())
    done = 0
    for batches in (3, 2):
        durable = _write_until_killed(tmp_path, done, batches)
        for number in range(done, durable + 1):
            plain.write("post", cold_writer.batch(number))
        done = durable + 1
        with contextlib.closing(open_tier(tmp_path)) as tier:
            for stored, expected in zip(tier.posts(names), plain.posts(names), strict=True):
                assert expected is None or (stored is not None and stored.revision >= expected.revision)
            for one in (tier, plain):
                one.write("post", cold_writer.batch(done))
            done += 1
            assert tier.posts(names) == plain.posts(names)
            same_hits(tier.search(vectors(1)[0], 1000), plain.search(vectors(1)[0], 1000))
            tier.flush()


def test_a_full_disk_loses_nothing_that_was_flushed(tmp_path: Path) -> None:
    """And it goes on when there is room again."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare here, so no disk of its own for this test")
    own_mounts = ["unshare", "--user", "--map-root-user", "--mount"]
    command = [*own_mounts, sys.executable, "-m", "tests.kit.children.cold_tier_on_full_disk", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    if done.returncode == cold_tier_on_full_disk.REFUSED or "unshare" in done.stderr:
        pytest.skip("mounting is refused here")
    assert done.returncode == 0, done.stdout + done.stderr


def _in_files(folder: Path, vector: Vector) -> bool:
    """As the engine's segments have it, or as its log does: CBOR, where each number has a mark of its own."""
    logged = b"".join(b"\xfa" + struct.pack(">f", number) for number in vector[:4])
    contents = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    return any(vector.tobytes() in content or logged in content for content in contents)


def _write_until_killed(folder: Path, first: int, batches: int) -> int:
    """The last batch that was durable."""
    command = [sys.executable, "-m", "tests.kit.children.cold_writer", str(folder), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        durable = [int(writer.stdout.readline()) for _ in range(batches)]
        writer.kill()
        durable += [int(line) for line in writer.stdout.read().splitlines()]
    assert writer.returncode == -9
    return durable[-1]
