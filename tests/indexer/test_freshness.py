import pytest

from indexer.freshness import Freshness, FreshnessWindow


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


def test_capacity_keeps_the_newest() -> None:
    window = FreshnessWindow(capacity=2)
    window.add([1.0, 2.0, 3.0])
    assert window.recent() == [2.0, 3.0]


def test_a_clock_that_runs_ahead_counts_as_zero() -> None:
    window = FreshnessWindow()
    window.add([-0.5])
    assert window.recent() == [0.0]
