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


def measured(watched: Watched, generation: Generation, share: float, number: int) -> None:
    for _ in range(number):
        watched.watch.missed(generation, share)


def test_a_canary_that_finds_less_ends(watched: Watched) -> None:
    watched.saw(A, 0, 1)
    measured(watched, A, 0.002, 300)
    measured(watched, B, 0.2, 40)
    assert watched.reason() == (
        "the recall of 40 of its answers is 0.800, and 0.998 of the serving one; at most 0.01 less is allowed"
    )


def test_a_canary_that_finds_as_much_as_the_serving_one_stays(watched: Watched) -> None:
    """Also where both find little, and where the difference may be chance."""
    watched.saw(A, 0, 1)
    measured(watched, A, 0.2, 300)
    measured(watched, B, 0.2, 300)
    assert watched.reason() is None
    measured(watched, B, 0.4, 30)
    assert watched.reason() is None


def test_a_few_measured_answers_are_no_judgement(watched: Watched) -> None:
    watched.saw(A, 0, 1)
    measured(watched, A, 0.0, 300)
    measured(watched, B, 1.0, 19)
    assert watched.reason() is None
    measured(watched, B, 1.0, 1)
    assert watched.reason() is not None
    watched.now_s = 601.0
    assert watched.reason() is None, "they are too old"


def test_what_was_measured_of_a_generation_that_has_gone_is_forgotten(watched: Watched) -> None:
    watched.saw(A, 0, 1)
    measured(watched, A, 0.0, 300)
    measured(watched, B, 1.0, 100)
    watched.watch.forget([A])
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
