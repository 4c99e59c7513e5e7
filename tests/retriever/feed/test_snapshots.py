"""When a snapshot is written, used and removed, by a clock that the test sets."""

import os
import pickle
from concurrent.futures import Future
from pathlib import Path

import pytest

from indexer.errors import SnapshotOfNewerForm, SnapshotRefused
from indexer.hot.tier import MatrixHotTier
from indexer.id_table import IdTable
from indexer.settings import HotSettings
from indexer.tiers import SnapshotMoment
from retriever.feed.snapshots import Snapshots, remove_snapshots
from schemas.ids import Micros, Offset, Partition, PostId
from tests.kit.brute_hot_tier import BruteHotTier
from tests.kit.data.embeddings import DIMENSION, hot_records, post_embedding
from tests.kit.hung_hot_tier import hung

EVERY_S, ERASE_S = 300.0, 3600.0
AT = {Partition(0): Offset(5)}
TOPIC_ID = "a/topic-id"


class Tier(BruteHotTier):
    """Its snapshots end when the test lets them."""

    def __init__(self) -> None:
        super().__init__(DIMENSION, HotSettings(), IdTable())
        self.moments: list[SnapshotMoment] = []
        self.ends_at_once = True
        self.fails = False
        self.finds_newer = False
        self.unfinished: list[Future[None]] = []

    def save(self, folder: Path, moment: SnapshotMoment, *, timeout_s: float | None = None) -> Future[None]:
        self.moments.append(moment)
        future: Future[None] = Future()
        if self.fails:
            future.set_exception(OSError("no space left"))
        elif self.ends_at_once:
            future = super().save(folder, moment)
        else:
            self.unfinished.append(future)
        return future

    def load(self, folder: Path) -> SnapshotMoment | None:
        if self.finds_newer:
            raise SnapshotOfNewerForm("it is of form 2")
        try:
            return super().load(folder)
        except pickle.UnpicklingError as error:
            raise SnapshotRefused("it is damaged") from error


class Setup:
    """Snapshots of a new process whenever `restart` is called."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "hot"
        self.now_s = 10_000.0
        self.topic_id = TOPIC_ID
        self.restart()

    def restart(self, every_s: float = EVERY_S, *, writes: bool = True) -> None:
        self.tier = Tier()
        self.snapshots = Snapshots(
            self.root,
            self.tier,
            lambda: self.topic_id,
            every_s=every_s,
            erase_within_s=ERASE_S,
            writes=writes,
            clock=lambda: self.now_s,
        )

    def tick(self, later_s: float = 0.0, *, caught_up: bool = True) -> None:
        self.now_s += later_s
        self.snapshots.tick(AT, caught_up=caught_up)

    def on_disk(self) -> bool:
        return any(path.is_file() for path in self.root.rglob("*"))


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    setup = Setup(tmp_path)
    setup.snapshots.load()
    return setup


def test_it_is_taken_over_by_the_next_process(setup: Setup) -> None:
    setup.tier.apply(hot_records(post_embedding("a")))
    setup.tick()
    setup.restart()
    assert setup.snapshots.load() == AT
    assert [post.post_id for post in setup.tier.scroll_posts()] == [PostId("a")]


def test_it_is_written_as_soon_as_the_feed_has_caught_up_and_then_every_few_minutes(setup: Setup) -> None:
    setup.tick(caught_up=False)
    assert setup.tier.moments == []
    setup.tick()
    setup.tick(EVERY_S - 1)
    assert setup.tier.moments == [SnapshotMoment(AT, Micros(10_000_000_000))]
    setup.tick(1)
    assert len(setup.tier.moments) == 2


def test_only_one_is_written_at_a_time(setup: Setup) -> None:
    setup.tier.ends_at_once = False
    setup.tick()
    setup.tick(2 * EVERY_S)
    assert len(setup.tier.moments) == 1
    setup.tier.unfinished[0].set_result(None)
    setup.tick()
    assert len(setup.tier.moments) == 2


def test_what_must_be_erased_soon_is_written_more_often(setup: Setup) -> None:
    setup.restart(every_s=10 * ERASE_S)
    setup.snapshots.load()
    setup.tick()
    setup.tick(ERASE_S / 2)
    assert len(setup.tier.moments) == 2


def test_the_first_one_of_a_process_is_not_written_before_it_is_due(setup: Setup) -> None:
    setup.tick()
    setup.now_s += EVERY_S / 2
    setup.restart()
    setup.snapshots.load()
    setup.tick()
    assert setup.tier.moments == []
    setup.tick(EVERY_S / 2)
    assert len(setup.tier.moments) == 1


def test_one_that_cannot_be_written_anew_is_removed_in_time(setup: Setup) -> None:
    setup.tick()
    setup.tier.fails = True
    setup.tick(ERASE_S / 2)
    assert setup.on_disk()
    setup.tick(ERASE_S / 2)
    assert not setup.on_disk()
    setup.tier.fails = False
    setup.tick(EVERY_S)
    assert setup.on_disk()


def test_one_that_is_too_old_is_removed_also_while_the_feed_cannot_read(setup: Setup) -> None:
    setup.tick()
    setup.tick(ERASE_S, caught_up=False)
    assert not setup.on_disk()


def test_one_that_is_too_old_is_removed_also_while_the_broker_does_not_answer(setup: Setup) -> None:
    """Its age is then that of its files."""
    setup.tick()
    (entry,) = setup.root.glob("*")
    setup.now_s = entry.stat().st_mtime + ERASE_S
    setup.restart()
    setup.tick(caught_up=False)
    assert not setup.on_disk()


def test_one_that_stands_for_lost_records_is_removed_and_written_anew(setup: Setup) -> None:
    setup.tick()
    setup.snapshots.discard()
    assert not setup.on_disk()
    setup.tick(1)
    assert setup.on_disk()


def test_one_that_is_being_written_while_records_are_lost_is_removed_when_it_is_done(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retriever.feed.snapshots._FINISH_S", 0.1)
    setup.tier.ends_at_once = False
    setup.tick()
    setup.snapshots.discard()
    (setup.root / "a_topic-id").mkdir(parents=True)
    (setup.root / "a_topic-id" / "hot.snapshot").touch()
    setup.tier.unfinished[0].set_result(None)
    setup.tick(caught_up=False)
    assert not setup.on_disk()


def test_a_damaged_one_is_removed_and_the_topic_is_read(setup: Setup) -> None:
    setup.tick()
    for file in setup.root.rglob("brute"):
        file.write_bytes(b"damaged")
    setup.restart()
    assert setup.snapshots.load() == {}
    assert not setup.on_disk()


def test_one_of_another_topic_is_removed(setup: Setup) -> None:
    """A topic of the same name that was deleted and made again has other records at the same offsets."""
    setup.tier.apply(hot_records(post_embedding("a")))
    setup.tick()
    setup.topic_id = "another"
    setup.restart()
    assert setup.snapshots.load() == {}
    assert setup.tier.count() == 0
    assert not setup.on_disk()


def test_a_clean_stop_writes_a_last_one(setup: Setup) -> None:
    setup.tick()
    setup.tier.apply(hot_records(post_embedding("a")))
    setup.snapshots.finish({Partition(0): Offset(6)})
    setup.restart()
    assert setup.snapshots.load() == {0: 6}
    assert setup.tier.count() == 1


def test_a_stop_does_not_wait_for_long(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retriever.feed.snapshots._FINISH_S", 0.1)
    setup.tick()
    setup.tier.ends_at_once = False
    setup.tick(EVERY_S)
    setup.snapshots.finish({Partition(0): Offset(6)})
    assert len(setup.tier.moments) == 2, "the one that is under way is not done, so no other is begun"
    setup.restart()
    assert setup.snapshots.load() == AT


def test_a_device_that_hangs_holds_the_feed_up_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retriever.feed.snapshots._BEGIN_S", 0.1)
    tier = MatrixHotTier(DIMENSION, HotSettings(device="cpu"), IdTable())
    root = tmp_path / "hot"
    snapshots = Snapshots(root, tier, lambda: TOPIC_ID, every_s=0.0, erase_within_s=ERASE_S)
    snapshots.load()
    with hung(tier):
        snapshots.tick(AT, caught_up=True)
        snapshots.finish(AT)
    assert not any(path.is_file() for path in root.rglob("*")), "nothing was to be had"
    snapshots.finish(AT)
    assert any(path.is_file() for path in root.rglob("*"))


def test_processes_that_do_not_write_it_load_it_and_leave_it_alone(setup: Setup) -> None:
    setup.tier.apply(hot_records(post_embedding("a")))
    setup.tick()
    setup.restart(writes=False)
    assert setup.snapshots.load() == AT
    assert setup.tier.count() == 1
    setup.tick(2 * ERASE_S)
    setup.snapshots.finish(AT)
    assert setup.tier.moments == []
    assert setup.on_disk(), "the process that writes it removes it in time"


def test_a_process_that_does_not_write_it_removes_one_for_lost_records(setup: Setup) -> None:
    setup.tick()
    setup.restart(writes=False)
    setup.snapshots.load()
    setup.snapshots.discard()
    assert not setup.on_disk()


def test_snapshots_can_be_removed_where_there_are_none(tmp_path: Path) -> None:
    remove_snapshots(tmp_path / "hot")
    assert list(tmp_path.iterdir()) == []


def test_one_of_a_newer_version_is_left_alone_until_it_must_go(setup: Setup) -> None:
    setup.tick()
    os.utime(setup.root, (setup.now_s, setup.now_s))
    for folder in setup.root.iterdir():
        os.utime(folder, (setup.now_s, setup.now_s))
    setup.restart()
    setup.tier.finds_newer = True
    assert setup.snapshots.load() == {}
    setup.tick(EVERY_S * 2)
    setup.snapshots.finish(AT)
    assert setup.on_disk()
    assert not setup.tier.moments
    setup.tick(ERASE_S)
    assert setup.tier.moments, "what was deleted since must not stay in it, so this version's own has taken its place"
