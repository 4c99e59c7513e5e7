import pytest

from indexer.freshness import BUCKETS_S, Freshness, FreshnessCounts, FreshnessWindow, added
from indexer.freshness_metric import add_freshness, freshness_family

BOUNDS = ("0.25", "0.5", "30.0", "60.0", "+Inf")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_nothing_indexed_has_no_percentiles() -> None:
    assert FreshnessWindow().summary() == Freshness(None, None, 0)


def test_percentiles_of_what_was_added() -> None:
    window = FreshnessWindow()
    window.add(n / 100 for n in range(101))
    summary = window.summary()
    assert summary.p50 == pytest.approx(0.5)
    assert summary.p99 == pytest.approx(0.99)
    assert summary.samples == 101


def test_old_samples_leave_the_window() -> None:
    clock = Clock()
    window = FreshnessWindow(window_s=10, clock=clock)
    window.add([100.0])
    clock.now = 10.5
    window.add([1.0])
    assert len(window._samples) == 1, "also where nobody reads"
    assert window.recent() == [1.0]


def test_how_long_ago_the_newest_came_is_known_for_longer_than_the_window() -> None:
    clock = Clock()
    window = FreshnessWindow(window_s=10, clock=clock)
    window.add([1.0])
    clock.now = 100.0
    window.add([])
    assert window.summary() == Freshness(None, None, 0, newest_age_s=100.0)
    window.add([2.0])
    clock.now = 103.0
    assert window.summary().newest_age_s == 3.0


def test_capacity_keeps_the_newest() -> None:
    window = FreshnessWindow(capacity=2)
    window.add([1.0, 2.0, 3.0])
    assert window.recent() == [2.0, 3.0]


def test_a_clock_that_runs_ahead_counts_as_zero() -> None:
    window = FreshnessWindow()
    window.add([-0.5])
    assert window.recent() == [0.0]


def test_counts_of_all_samples_are_a_histogram_by_kind() -> None:
    counts = FreshnessCounts()
    for seconds in (-1.0, 0.25, 0.3, 60.0, 7200.0):
        counts.add("post", seconds)
    counts.add("delete", 2.0)
    family = freshness_family()
    add_freshness(family, "hot", "a-1", counts.counts())
    values = {(sample.name, *sorted(sample.labels.values())): sample.value for sample in family.samples}
    name = "nearline_freshness_seconds_bucket"
    of_posts = {bound: values[name, *sorted(("hot", "post", "a-1", bound))] for bound in BOUNDS}
    assert of_posts == {"0.25": 2, "0.5": 3, "30.0": 3, "60.0": 4, "+Inf": 5}
    assert values["nearline_freshness_seconds_sum", "a-1", "hot", "post"] == pytest.approx(7260.55)
    assert values["nearline_freshness_seconds_count", "a-1", "delete", "hot"] == 1


def test_the_counts_of_both_feeds_of_a_tier_are_one_series() -> None:
    posts, members = FreshnessCounts(), FreshnessCounts()
    posts.add("post", 0.2)
    posts.add("delete", 0.2)
    members.add("delete", 7200.0)
    sums = added(posts.counts(), members.counts())
    assert set(sums) == {"post", "delete"}
    assert sums["delete"].at_most == (*[1] * len(BUCKETS_S), 2)
    assert sums["delete"].sum_s == pytest.approx(7200.2)
    assert added({}, members.counts()) == members.counts()
