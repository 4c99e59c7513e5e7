"""What `nearline chaos`, and so `make chaos`, asks of the adversary."""

import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nearline.chaos import run
from nearline.chaos.findings import Findings
from nearline.chaos.judge import Verdict
from nearline.chaos.operator_acts import ACTS
from nearline.chaos.table import Round
from nearline.cli import cli
from nearline.up.runtime import BROKER
from streams.kafka import crash_points

NOTHING = Findings(*(set[str]() for _ in Findings._fields))
GOOD = Round("random faults", ["a fault"], 1.0, Verdict(NOTHING, NOTHING, 0, set()))
ROOT = Path(__file__).parents[3]


class Recorder:
    """In the place of the adversary: notes what it is asked for."""

    outages = ("the broker is gone",)

    def __init__(self) -> None:
        self.rounds = [GOOD]
        self.asked: list[tuple[str, Any]] = []

    def __getattr__(self, what: str) -> Any:
        return lambda first, num_events: self.asked.append((what, first))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()

    @contextmanager
    def chaos_on(*_: object, **__: object) -> Iterator[Recorder]:
        yield recorder

    monkeypatch.setattr(run, "chaos_on", chaos_on)
    return recorder


def test_it_passes_every_crash_point_and_kills_every_stage(recorder: Recorder) -> None:
    done = CliRunner().invoke(cli, ["chaos", "--faults", "300"], catch_exceptions=False)
    assert done.exit_code == 0
    assert [name for what, name in recorder.asked if what == "crash_point"] == list(crash_points.OF_STAGES)
    assert [act for what, act in recorder.asked if what == "act"] == list(ACTS)
    assert {stage for what, stage in recorder.asked if what == "kill"} == {*run.STAGES, BROKER}
    assert {stage for what, stage in recorder.asked if what == "freeze_for_good"} == {*run.STAGES, BROKER}
    assert [name for what, name in recorder.asked if what == "outage"] == list(recorder.outages)


def test_a_stage_passes_each_crash_point_twice() -> None:
    """That it does is shown on a real pipeline, and is an error where it does not."""
    assert run.CRASHES == 2
    groups = {name.partition(".")[0] for name in crash_points.OF_STAGES}
    assert groups == run.PASSING.keys(), "somebody passes each of them"


def test_each_act_of_an_operator_is_killed_at_each_of_its_crash_points_twice() -> None:
    within = {f"generations.{name}" for name in ("begun", "records-sent", "committed")}
    removal = {f"generations.{name}" for name in ("groups-deleted", "files-removed", "topics-deleted")}
    points = {
        "build": {*within, *removal, "generations.package-fetched", "generations.topics-made"},
        "promote": within,
        "rollback": within,
        "retire": {*within, *removal},
    }
    assert set().union(*points.values()) == set(crash_points.OF_OPERATORS)
    crashes = Counter[tuple[str, str]]()
    for act in ACTS:
        crashes.update({(act.verb, point): number for point, number in act.crashes.items()})
    assert crashes.keys() == {(verb, point) for verb, names in points.items() for point in names}
    assert min(crashes.values()) == run.CRASHES


def test_make_chaos_leaves_none_out() -> None:
    done = subprocess.run(["make", "-n", "chaos"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "nearline chaos --faults 300" in done.stdout
    assert "--no-crash-points" not in done.stdout
