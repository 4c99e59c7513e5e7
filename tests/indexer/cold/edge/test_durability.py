"""What was flushed to the embedded cold tier survives a kill, a power cut and a full disk."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from indexer.brute_force import BruteColdTier
from schemas.ids import Micros, PostId
from tests.kit.children import cold_tier_on_full_disk, cold_writer
from tests.kit.data.embeddings import (
    DIMENSION,
    NOW,
    index_records,
    member_embedding,
    post_embedding,
    vectors,
)
from tests.kit.tiers import SetClock, open_edge_tier, same_hits


@pytest.mark.usefixtures("small_shards")
def test_a_flush_leaves_nothing_to_the_engines_log(tmp_path: Path) -> None:
    """A power cut may take the log, which the engine writes without waiting for the disk. What was flushed is there
    without it, in every shard of both kinds; what was not is why this test can fail."""
    posts, members = [f"p{n}" for n in range(150)], [f"m{n}" for n in range(70)]
    with contextlib.closing(open_edge_tier(tmp_path / "cold")) as tier:
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
        with contextlib.closing(open_edge_tier(on_disk)) as tier:
            post_ids = {stored.post_id for stored in tier.scroll_posts()}
            assert tier.count("post") == len(post_ids)
            return len(post_ids), tier.count("member")


@pytest.mark.usefixtures("small_shards")
def test_a_power_cut_between_two_flushes_leaves_no_post_twice(tmp_path: Path) -> None:
    """p80 leaves its number in the second shard and gets one in the first, which alone is flushed."""
    second, before = tmp_path / "cold" / "posts" / "1", tmp_path / "before"
    first_text, third_text = vectors(2, seed=3)
    with contextlib.closing(open_edge_tier(tmp_path / "cold")) as tier:
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
        with contextlib.closing(open_edge_tier(tmp_path / "cold", erase_within_s=0)) as tier:
            assert tier.count("post") == 99, "p10 is gone, and the record of other is read again"
            assert [post and post.revision for post in tier.posts([PostId("p80")])] == [3]
            assert tier.search(third_text, 1).post_ids == ["p80"]
            assert sorted(tier.search(first_text, 200).post_ids) == sorted(post.post_id for post in tier.scroll_posts())
            tier.flush()
    with contextlib.closing(open_edge_tier(tmp_path / "cold", erase_within_s=0)) as tier:
        tier.write("post", index_records(post_embedding("p80", 4, deleted=True)))
        assert "p80" not in tier.search(first_text, 200).post_ids
        assert tier.count("post") == 98


def test_a_record_that_is_repeated_after_a_start_mends_what_a_kill_left_half_written(tmp_path: Path) -> None:
    """A kill within the engine's write may leave a new revision beside an old vector."""
    whole = post_embedding("p1", 2)
    with contextlib.closing(open_edge_tier(tmp_path)) as first:
        first.write("post", index_records(post_embedding("p1", 2, vector=vectors(1, seed=77)[0])))
        first.flush()
    with contextlib.closing(open_edge_tier(tmp_path)) as again:
        again.write("post", index_records(whole))
        stored = again.posts([PostId("p1")], with_vectors=True)[0]
        assert stored is not None
        assert stored.vector is not None
        np.testing.assert_array_equal(stored.vector, np.frombuffer(whole.vector, "<f4"))
        assert again.write("post", index_records(whole)) == 0


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
        with contextlib.closing(open_edge_tier(tmp_path)) as tier:
            for stored, expected in zip(tier.posts(names), plain.posts(names), strict=True):
                assert expected is None or (stored is not None and stored.revision >= expected.revision)
            for each in (tier, plain):
                each.write("post", cold_writer.batch(done))
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
