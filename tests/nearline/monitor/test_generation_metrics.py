"""What the log says of the generations, for Prometheus: pure, of a state."""

from datetime import timedelta

import pytest

from nearline.autopilot.acts import switch
from nearline.monitor.generation_metrics import generation_metrics
from schemas.generations import Canary
from schemas.ids import Generation
from streams.generations import acts
from streams.generations.state import Generations
from tests.kit.data.generations import AT, founded, two_live

B = Generation("b-2")
BY = acts.By("serve:7", AT + timedelta(hours=1), "40 of its 100 answers failed")


def samples(state: Generations) -> dict[tuple[str, ...], float]:
    """By the name of the series and its labels' values."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in generation_metrics(state)
        for sample in metric.samples
    }


@pytest.fixture
def with_canary() -> Generations:
    return two_live("ready", canary=Canary(B, 0.05, AT))


def test_each_generation_that_lives_is_named(with_canary: Generations) -> None:
    said = samples(with_canary)
    assert said["nearline_generation_info", "a-1", "serving", "blue"] == 1
    assert said["nearline_generation_info", "b-2", "ready", "green"] == 1
    assert said["nearline_generation_canary_share", "b-2"] == 0.05
    assert len(said) == 4


def test_a_canary_that_left_its_bounds_is_said_until_something_else_is_done(with_canary: Generations) -> None:
    assert with_canary.pointer is not None
    assert with_canary.pointer.canary is not None
    ended = with_canary.with_records(acts.end_canary(with_canary, with_canary.pointer.canary, BY))
    assert samples(ended)["nearline_generation_canary_ended_timestamp_seconds", "b-2"] == BY.at.timestamp()
    assert ("nearline_generation_canary_share", "b-2") not in samples(ended)
    noted = ended.with_records(acts.note(ended, B, "looked at", BY))
    assert not [key for key in samples(noted) if "ended" in key[0]]


def test_a_canary_that_an_operator_ends_is_no_news(with_canary: Generations) -> None:
    rolled_back = with_canary.with_records(acts.rollback(with_canary, BY))
    assert not [key for key in samples(rolled_back) if "ended" in key[0]]


def test_whether_the_autopilot_is_on_is_said_once_the_log_was_read() -> None:
    on = ("nearline_autopilot_on",)
    assert on not in samples(Generations())
    state = founded()
    assert samples(state)[on] == 0, "it was never switched on"
    for switched in (True, False):
        state = state.with_records(switch(state, BY, on=switched))
        assert samples(state)[on] == switched
