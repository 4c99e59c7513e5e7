"""What a search of the hot tier sees while the tier changes, and what stays in memory."""

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import TierLate
from indexer.hot.matrix.flat_matrix import FlatView
from indexer.hot.tier import MatrixHotTier
from indexer.id_table import KEPT_S, UNKNOWN, IdTable
from indexer.settings import HotSettings
from indexer.tiers import NO_FILTERS, Filters, HotAnswer, HotQuery, Numbers, SnapshotMoment
from schemas.embeddings import Vector
from schemas.ids import Offset, Partition, PostId
from tests.kit.data.embeddings import DIMENSION, NOW, hot_records, post_embedding, vectors
from tests.kit.hung_hot_tier import hung
from tests.kit.waiting import until

QUERY = vectors(1)[0]
NOTHING = np.empty(0, np.int32)


def make(capacity: int = 100) -> MatrixHotTier:
    return MatrixHotTier(DIMENSION, HotSettings(capacity=capacity, device="cpu"), IdTable())


def search(tier: MatrixHotTier, vector: Vector, k: int = 10, filters: Filters = NO_FILTERS) -> HotAnswer:
    return tier.search([HotQuery(vector, k, filters, tier._ids.find(["p0", "p4", "p5"]))])[0]


def while_it_scans(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None]) -> None:
    """Calls `meanwhile` in the middle of the next search, between its moment and its scan."""
    scan = FlatView.scan

    def scan_later(view: FlatView, *arguments: object) -> object:
        monkeypatch.setattr(FlatView, "scan", scan)
        meanwhile()
        return scan(view, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(FlatView, "scan", scan_later)


def test_a_search_sees_the_posts_as_they_were_when_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """All posts change and one goes while it scans: it gives the old ones, with their own scores and revisions."""
    tier = make()
    tier.apply(hot_records(*(post_embedding(f"p{n}", 1, vector=QUERY) for n in range(5))))

    def meanwhile() -> None:
        changed = [post_embedding(f"p{n}", 2, vector=-QUERY) for n in range(4)]
        gone, new = post_embedding("p4", 2, deleted=True), post_embedding("p5", 1, vector=QUERY)
        tier.apply(hot_records(*changed, gone, new, first=5))
        tier.begin({Partition(1): Offset(7)})

    tier._ids.intern([PostId("p5")])
    while_it_scans(monkeypatch, meanwhile)
    before = search(tier, QUERY)
    assert tier._ids.ids(before.numbers) == ["p0", "p1", "p2", "p3", "p4"]
    assert before.revisions.tolist() == [1] * 5
    assert before.cold_revisions.tolist() == [1, 1, -1]
    assert before.floor == {0: 0}
    np.testing.assert_allclose(before.scores, 1.0, atol=1e-5)
    after = search(tier, QUERY)
    assert tier._ids.ids(after.numbers) == ["p5", "p0", "p1", "p2", "p3"]
    assert after.revisions.tolist() == [1, 2, 2, 2, 2]
    assert after.cold_revisions.tolist() == [2, 2, 1]
    assert after.floor == {0: 0, 1: 7}


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (Filters(exclude_posts=frozenset({"p1"})), ["p0"]),
        (Filters(only_posts=frozenset({"p1"})), ["p1"]),
        (Filters(exclude_posts=frozenset({"p1"}), only_posts=frozenset({"p0", "p1"})), ["p0"]),
    ],
)
def test_a_filter_knows_a_post_that_comes_in_while_its_ids_are_looked_up(
    monkeypatch: pytest.MonkeyPatch, filters: Filters, found: list[str]
) -> None:
    """Otherwise a member would be shown a post that the member hid."""
    tier = make()
    tier.apply(hot_records(post_embedding("p0", vector=QUERY)))
    find = tier._ids.find

    def it_comes_after(ids: Collection[str]) -> Numbers:
        numbers = find(ids)
        if "p1" in ids:
            monkeypatch.setattr(tier._ids, "find", find)
            tier.apply(hot_records(post_embedding("p1", vector=QUERY), first=1))
        return numbers

    monkeypatch.setattr(tier._ids, "find", it_comes_after)
    assert tier._ids.ids(search(tier, QUERY, filters=filters).numbers) == found


def test_writes_wait_for_a_search_only_when_it_looks_at_all_spare_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    tier = make(capacity=10)
    scanning, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        scanning.set()
        go_on.wait()

    while_it_scans(monkeypatch, wait)
    tier.apply(hot_records(post_embedding("p0", 1)))
    reader = threading.Thread(target=search, args=(tier, QUERY))
    reader.start()
    assert scanning.wait(10)
    revisions = [post_embedding("p0", revision) for revision in range(2, 8000)]
    tier.apply(hot_records(*revisions[:3000], first=1))
    writer = threading.Thread(target=tier.apply, args=(hot_records(*revisions[3000:], first=3001),))
    writer.start()
    writer.join(0.2)
    assert writer.is_alive(), "a slot was reused while a search looked at it"
    go_on.set()
    for thread in (reader, writer):
        thread.join(20)
        assert not thread.is_alive()
    assert search(tier, QUERY).revisions.tolist() == [7999]


def test_searches_during_many_changes_are_whole() -> None:
    """Every hit has the score of the revision that it names, and live posts are always found, once."""
    tier = make(capacity=10_000)
    axes = np.eye(DIMENSION, dtype=np.float32)
    tier.apply(hot_records(*(post_embedding(f"s{n:02}", 1, vector=axes[n]) for n in range(DIMENSION))))
    failures: list[str] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            answer = search(tier, axes[0], 400, Filters(exclude_authors=frozenset({"nobody"})))
            names = tier._ids.ids(answer.numbers)
            if len(set(names)) != len(names):
                failures.append("a post came twice")
            if sum(name.startswith("s") for name in names) != DIMENSION:
                failures.append("a steady post was missing")
            for name, score, revision in zip(names, answer.scores, answer.revisions.tolist(), strict=True):
                if name.startswith("c") and round(float(score)) != (1 if revision % 2 else -1):
                    failures.append(f"{name} revision {revision} has the score {score} of another")

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for revision in range(1, 60):
        sign = 1 if revision % 2 else -1
        changes = [post_embedding(f"c{n}", revision, vector=sign * axes[0]) for n in range(100)]
        gone = [post_embedding(f"d{revision - 1}-{n}", 2, deleted=True) for n in range(50)]
        new = [post_embedding(f"d{revision}-{n}", 1, vector=axes[1]) for n in range(50)]
        tier.apply(hot_records(*changes, *gone, *new, first=1000 * revision, partition=1))
    stop.set()
    for reader in readers:
        reader.join()
    assert failures == []


def test_few_posts_are_scanned_quickly_in_a_large_tier() -> None:
    """Only slots that were ever used are looked at."""
    tier = make(capacity=50_000)
    tier.apply(hot_records(*(post_embedding(f"p{n}") for n in range(10))))
    with tier._contents.scanning(NOTHING) as (moment, _):
        assert moment.num_slots == 10


def test_what_is_gone_leaves_no_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once no search looks at it any more."""
    tier = make()
    tier.apply(hot_records(post_embedding("gone"), post_embedding("updated"), post_embedding("kept")))

    def meanwhile() -> None:
        tier.apply(hot_records(post_embedding("gone", 2, deleted=True), post_embedding("updated", 2), first=3))
        tier.expire(NOW)

    while_it_scans(monkeypatch, meanwhile)
    assert len(search(tier, QUERY).numbers) == 3
    assert _num_vectors(tier) == 4
    tier.expire(NOW)
    assert _num_vectors(tier) == 2
    tier.apply(hot_records(post_embedding("new"), first=5))
    tier.begin({Partition(0): Offset(5)})
    tier.expire(NOW)
    assert _num_vectors(tier) == 1


def test_what_is_gone_leaves_no_number_and_no_author() -> None:
    tier = make(capacity=5)
    for first in range(0, 5000, 100):
        posts = [post_embedding(f"p{n}", author=f"m{n}") for n in range(first, first + 100)]
        tier.apply(hot_records(*posts, first=first))
    tier.expire(NOW)
    for table in (tier._ids, tier._contents.authors):
        assert np.count_nonzero(table._references) == 5


def _num_vectors(tier: MatrixHotTier) -> int:
    return int(np.count_nonzero(tier._contents._matrix.vectors(np.arange(10)).any(axis=1)))


def test_a_tier_that_is_closed_gives_all_ids_back_to_a_table_that_others_use() -> None:
    now_s = [100.0]
    ids = IdTable(lambda: now_s[0])
    closed, other = (MatrixHotTier(DIMENSION, HotSettings(device="cpu"), ids) for _ in range(2))
    for tier in (closed, other):
        tier.apply(hot_records(*(post_embedding(f"p{n}") for n in range(5))))
    own = [post_embedding("p0", 2), post_embedding("own"), post_embedding("gone", deleted=True)]
    closed.apply(hot_records(*own, first=5))
    closed.release_ids()
    for _ in range(6):
        now_s[0] += KEPT_S + 2
        ids.release(ids.intern([PostId("of somebody else")]))
    assert ids.find(["own", "gone"]).tolist() == [UNKNOWN, UNKNOWN]
    assert UNKNOWN not in ids.find([f"p{n}" for n in range(5)])
    assert sorted(ids.ids(search(other, QUERY).numbers)) == [f"p{n}" for n in range(5)]


@pytest.fixture
def hanging() -> Iterator[MatrixHotTier]:
    """A tier whose device hangs until the test ends."""
    tier = make(capacity=10)
    tier.apply(hot_records(post_embedding("p0", 1)))
    with ExitStack() as to_the_end:
        with tier._contents.reading(tier._ids.find(["p0"])) as moment:
            to_the_end.enter_context(hung(tier))
            assert moment.slots.tolist() == [0]
        yield tier
    (post,) = tier.posts([PostId("p0")], timeout_s=0)
    assert post is not None


def test_a_look_up_waits_for_a_device_that_hangs_as_long_as_it_may(hanging: MatrixHotTier) -> None:
    """And a look-up that has begun before ends without waiting: else the fixture would not get here."""
    for timeout_s in (0.0, 0.01):
        with pytest.raises(TierLate):
            hanging.posts([PostId("p0")], timeout_s=timeout_s)


def test_a_scroll_and_a_snapshot_wait_for_it_as_long_as_they_may(hanging: MatrixHotTier, tmp_path: Path) -> None:
    for timeout_s in (0.0, 0.01):
        with pytest.raises(TierLate):
            hanging.scroll_posts(timeout_s=timeout_s)
        with pytest.raises(TierLate):
            hanging.save(tmp_path, SnapshotMoment({}, NOW), timeout_s=timeout_s)
    assert list(tmp_path.iterdir()) == []


def test_a_scroll_breaks_off_where_a_device_begins_to_hang_on_its_way() -> None:
    tier = make(capacity=2000)
    tier.apply(hot_records(*(post_embedding(f"p{number}") for number in range(1001))))
    posts = tier.scroll_posts(timeout_s=0.01)
    assert next(posts).post_id == "p0"
    with hung(tier), pytest.raises(TierLate):
        list(posts)


def test_a_write_that_waits_for_a_look_up_goes_on_after_it_also_if_a_device_hung_when_it_ended() -> None:
    tier = make(capacity=10)
    tier.apply(hot_records(post_embedding("p0", 1)))
    reading, go_on = threading.Event(), threading.Event()

    def look() -> None:
        with tier._contents.reading(tier._ids.find(["p0"])):
            reading.set()
            go_on.wait(30)

    changes = hot_records(*(post_embedding("p0", revision) for revision in range(2, 8000)), first=1)
    reader, writer = threading.Thread(target=look), threading.Thread(target=tier.apply, args=(changes,))
    reader.start()
    assert reading.wait(10)
    writer.start()
    until(lambda: not tier._contents._pool.has(128), "the spare slots to be used up")
    with tier._contents._changed:
        go_on.set()
        reader.join(20)
        assert not reader.is_alive(), "its end waited for the lock"
    writer.join(20)
    assert not writer.is_alive()
    assert search(tier, QUERY).revisions.tolist() == [7999]
