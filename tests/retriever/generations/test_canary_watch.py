"""When a canary is to end."""

from collections.abc import Iterable

import pytest

from retriever.generations.canary_watch import CanaryBounds, CanaryWatch, is_beyond_chance
from retriever.generations.slots import Asked, Slot, Trial
from schemas.generations import Canary
from schemas.ids import Generation
from tests.kit.data.generations import AT
from tests.kit.open_generations import Openings

A, B = Generation("a-1"), Generation("b-2")
TRIAL = Trial(Canary(B, 0.05, AT), A)
BOUNDS = CanaryBounds(errors=0.01, p99_ratio=2.0, window_s=600.0)


class Watched:
    """A watch with a clock to set."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.watch = CanaryWatch(BOUNDS, lambda: self.now_s)
        openings = Openings()
        self._slots = {generation: Slot(generation, openings(generation)) for generation in (A, B)}

    def saw(
        self, generation: Generation, bad: int, total: int, times_s: Iterable[float | None] = (), trial: Trial = TRIAL
    ) -> None:
        times = [*times_s, *[0.01] * total][:total]
        for number, took_s in enumerate(times):
            self.watch.saw(Asked(self._slots[generation], trial), took_s, is_bad=number < bad)

    def reason(self) -> str | None:
        verdict = self.watch.verdict()
        return None if verdict is None else verdict.reason


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_a_canary_that_fails_more_often_ends(watched: Watched) -> None:
    watched.saw(A, 1, 1000)
    watched.saw(B, 40, 500)
    assert watched.reason() == (
        "40 of its 500 answers failed or were partial, and 1 of 1000 of the serving one; at most 0.01 more of them may"
    )


def test_a_canary_that_fails_as_often_as_the_serving_one_stays(watched: Watched) -> None:
    """During an outage both fail."""
    watched.saw(A, 500, 1000)
    watched.saw(B, 250, 500)
    assert watched.reason() is None


def test_a_few_answers_say_nothing_and_then_end_one_that_always_fails(watched: Watched) -> None:
    watched.saw(A, 0, 1000)
    watched.saw(B, 19, 19)
    assert watched.reason() is None
    watched.saw(B, 1, 1)
    assert watched.reason() is not None


def test_failures_within_chance_end_nothing(watched: Watched) -> None:
    watched.saw(A, 0, 1000)
    watched.saw(B, 3, 100)
    assert watched.reason() is None


def test_a_slow_canary_ends(watched: Watched) -> None:
    watched.saw(A, 0, 1000, [0.02] * 20)
    watched.saw(B, 0, 300, [0.05] * 30)
    assert watched.reason() == ("its p99 is 50 ms, and 20 ms of the serving one; at most 2 times as long is allowed")


def test_a_canary_within_its_bound_stays(watched: Watched) -> None:
    watched.saw(A, 0, 1000, [0.02] * 20)
    watched.saw(B, 0, 300, [0.039] * 30)
    assert watched.reason() is None


def test_times_of_batches_do_not_count(watched: Watched) -> None:
    watched.saw(A, 0, 1000)
    watched.saw(B, 0, 300, [None] * 300)
    assert watched.reason() is None


def test_what_is_older_than_the_window_is_forgotten(watched: Watched) -> None:
    watched.saw(B, 100, 100)
    watched.now_s = 601
    watched.saw(A, 0, 1000)
    watched.saw(B, 0, 100)
    assert watched.reason() is None


def test_another_trial_begins_anew(watched: Watched) -> None:
    watched.saw(A, 0, 1000)
    watched.saw(B, 100, 100)
    assert watched.reason() is not None
    other = Trial(Canary(B, 0.1, AT), A)
    watched.saw(A, 0, 1000, trial=other)
    assert watched.reason() is None
    watched.saw(B, 100, 100, trial=other)
    verdict = watched.watch.verdict()
    assert verdict is not None
    assert verdict.trial == other


def test_questions_of_no_trial_do_not_count(watched: Watched) -> None:
    opened = Slot(B, Openings()(B))
    for _ in range(100):
        watched.watch.saw(Asked(opened), 1.0, is_bad=True)
    assert watched.reason() is None


@pytest.mark.parametrize(
    ("bad", "total", "bound", "beyond"),
    [
        (0, 100, 0.01, False),
        (1, 100, 0.01, False),
        (5, 100, 0.01, False),
        (20, 100, 0.01, True),
        (100, 100, 0.01, True),
        (1, 1000, 0.0, True),
        (100, 100, 1.0, False),
        (600, 1000, 0.5, True),
        (520, 1000, 0.5, False),
    ],
)
def test_beyond_chance(bad: int, total: int, bound: float, beyond: bool) -> None:
    assert is_beyond_chance(bad, total, bound) is beyond
