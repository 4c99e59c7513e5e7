"""What only the embedded cold tier has: shards, segments, one owner, and a folder that survives a kill."""

import contextlib
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer import rewriting, shards
from indexer.brute import BruteColdTier
from indexer.edge import EdgeColdTier
from indexer.errors import TierRefused, TierUnavailable
from indexer.settings import ColdSettings
from indexer.tiers import Filters
from schemas.embeddings import Vector
from schemas.ids import Generation, Micros, PostId
from tests.indexer import full_disk, killed_writer
from tests.indexer.kit import (
    DIMENSION,
    GENERATION,
    NOW,
    SetClock,
    deleted_post,
    member,
    post,
    records,
    same_hits,
    vectors,
)


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
    made = [post(f"p{n:04}", vector=one, author=f"m{n % 7}", created_at_us=NOW + n) for n, one in enumerate(far)]
    for first in range(0, count, 50):
        tier.write("post", records(*made[first : first + 50], first=first))


@pytest.mark.usefixtures("small_shards")
def test_many_shards_answer_as_one(tier: EdgeColdTier) -> None:
    """Also where all of the best are in one shard, which is then asked for more than its share."""
    plain = BruteColdTier(DIMENSION)
    fill(tier, 900)
    fill(plain, 900)
    gone = [deleted_post(f"p{n:04}", 2) for n in range(0, 900, 11)]
    for one in (tier, plain):
        one.write("post", records(*gone, first=900))
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
        first.write("post", records(deleted_post("p0007", 2), first=300))
        first.flush()
    plain.write("post", records(deleted_post("p0007", 2), first=300))
    with contextlib.closing(open_tier(tmp_path)) as again:
        assert again.count("post") == 299
        same_hits(again.search(vectors(1)[0], 400), plain.search(vectors(1)[0], 400))
        assert again.posts([PostId("p0007")]) == plain.posts([PostId("p0007")])
        assert sorted(again.scroll_posts()) == sorted(plain.scroll_posts())


def test_a_flush_leaves_nothing_unwritten(tier: EdgeColdTier) -> None:
    """Not a matter of kills alone, which the engine's log outlives: of a machine that loses its power."""
    tier.write("post", records(post("p", 1)))
    tier.write("member", records(member("m", 1)))
    assert tier._posts.shards._dirty
    assert tier._members.shards._dirty
    tier.flush()
    assert not tier._posts.shards._dirty
    assert not tier._members.shards._dirty


@pytest.mark.usefixtures("small_shards")
def test_swept_points_make_room_for_new_posts(tier: EdgeColdTier, tmp_path: Path) -> None:
    for round_ in range(20):
        names = [f"r{round_}n{number}" for number in range(30)]
        tier.write("post", records(*(post(name, 1) for name in names)))
        tier.write("post", records(*(deleted_post(name, 2) for name in names), first=30))
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
            one.write("post", records(deleted_post("p0070", 2), first=300))
        tier.flush()
        tier.sweep(Micros(0))
        assert _in_files(tmp_path, victim.vector)
    with contextlib.closing(open_tier(tmp_path, erase_within_s=0)) as tier:
        tier.sweep(Micros(0))
        assert not _in_files(tmp_path, victim.vector)
        assert len(list((tmp_path / "posts").iterdir())) == 5, "each shard is there once, and nothing else"
        same_hits(tier.search(query, 300), plain.search(query, 300))
        tier.write("post", records(post("p0070", 3, vector=victim.vector), first=301))
        assert _in_files(tmp_path, victim.vector)
        assert tier.search(victim.vector, 1).post_ids == ["p0070"]


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
    rewriting.recover(tmp_path)
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
    whole = post("p1", 2)
    with contextlib.closing(open_tier(tmp_path)) as first:
        first.write("post", records(post("p1", 2, vector=vectors(1, seed=77)[0])))
        first.flush()
    with contextlib.closing(open_tier(tmp_path)) as again:
        again.write("post", records(whole))
        stored = again.posts([PostId("p1")], with_vectors=True)[0]
        assert stored is not None
        assert stored.vector is not None
        np.testing.assert_array_equal(stored.vector, np.frombuffer(whole.vector, "<f4"))
        assert again.write("post", records(whole)) == 0


def test_searches_and_writes_at_the_same_time(tier: EdgeColdTier) -> None:
    """A search gives only posts and scores that belong together, whatever is written meanwhile."""
    axes = np.eye(DIMENSION, dtype=np.float32)
    tier.write("post", records(*(post(f"p{n}", 1, vector=axes[n]) for n in range(DIMENSION))))
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
        tier.write("post", records(*(post(f"p{n}", revision, vector=axes[n]) for n in range(DIMENSION))))
        tier.write("post", records(*(post(f"new{revision}-{n}", 1, vector=-axes[0]) for n in range(20))))
        tier.write("post", records(*(deleted_post(f"new{revision}-{n}", 2) for n in range(20))))
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
    names = [PostId(f"p{number}") for number in range(killed_writer.NAMES)]
    plain = BruteColdTier(DIMENSION, SetClock())
    done = 0
    for batches in (3, 2):
        durable = _write_until_killed(tmp_path, done, batches)
        for number in range(done, durable + 1):
            plain.write("post", killed_writer.batch(number))
        done = durable + 1
        with contextlib.closing(open_tier(tmp_path)) as tier:
            for stored, expected in zip(tier.posts(names), plain.posts(names), strict=True):
                assert expected is None or (stored is not None and stored.revision >= expected.revision)
            for one in (tier, plain):
                one.write("post", killed_writer.batch(done))
            done += 1
            assert tier.posts(names) == plain.posts(names)
            same_hits(tier.search(vectors(1)[0], 1000), plain.search(vectors(1)[0], 1000))
            tier.flush()


def test_a_full_disk_loses_nothing_that_was_flushed(tmp_path: Path) -> None:
    """And it goes on when there is room again."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare here, so no disk of its own for this test")
    own_mounts = ["unshare", "--user", "--map-root-user", "--mount"]
    command = [*own_mounts, sys.executable, "-m", "tests.indexer.full_disk", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode == full_disk.REFUSED or "unshare" in done.stderr:
        pytest.skip("mounting is refused here")
    assert done.returncode == 0, done.stdout + done.stderr


def _in_files(folder: Path, vector: Vector) -> bool:
    """As the engine's segments have it, or as its log does: CBOR, where each number has a mark of its own."""
    logged = b"".join(b"\xfa" + struct.pack(">f", number) for number in vector[:4])
    contents = [file.read_bytes() for file in folder.rglob("*") if file.is_file()]
    return any(vector.tobytes() in content or logged in content for content in contents)


def _write_until_killed(folder: Path, first: int, batches: int) -> int:
    """The last batch that was durable."""
    command = [sys.executable, "-m", "tests.indexer.killed_writer", str(folder), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        durable = [int(writer.stdout.readline()) for _ in range(batches)]
        writer.kill()
        durable += [int(line) for line in writer.stdout.read().splitlines()]
    assert writer.returncode == -9
    return durable[-1]
