"""What a look shows, drawn into a text."""

import io

from rich.console import Console

from nearline.top.look import LivingGeneration, Look
from nearline.top.screen import screen
from nearline.top.series import Rates, Series
from schemas.api import (
    ColdStatus,
    FreshnessStatus,
    HotStatus,
    ProcessStatus,
    StageStatus,
    StatusResponse,
    TiersStatus,
)
from streams.generations.progress import Progress
from tests.kit.data.generations import generation_record

STATUS = StatusResponse(
    ready=False,
    generation="old-1111aaaa",
    processes=[
        ProcessStatus(name="serve", pid=812, restarts=0),
        ProcessStatus(name="encode-blue-0", pid=None, restarts=4),
    ],
    stages=[
        StageStatus(stage="contexts", group="contexts", topic="posts", lag=1234, oldest_age_s=75.25),
        StageStatus(stage="trending", group="trending", topic="activity", lag=None, oldest_age_s=None),
    ],
    tiers=TiersStatus(cold=ColdStatus(posts=5000, members=70), hot=HotStatus(posts=None)),
    dead_letters=9,
    freshness_s=FreshnessStatus(p50=0.4, p99=None, newest_age_s=12.0),
    problems=["cold tier: no answer in time"],
    standing_still=["contexts has stood still for 7 s: it has committed nothing"],
)
SERIES = Series(1.0, {}, {}, {("encode", "too long"): 8, ("index", "bad vector"): 0})
LOOK = Look(
    at=0.0,
    status=STATUS,
    generations=[
        LivingGeneration(generation_record("old-1111aaaa", "serving", "blue"), None),
        LivingGeneration(generation_record("new-2222bbbb", "building", "green"), Progress(30, 40, 1.0)),
    ],
    series=SERIES,
    rates=Rates({"posts": 35.0}, {("contexts", "posts"): 1200.5}),
)


def drawn(look: Look | None, width: int = 140) -> list[str]:
    """The words of each line."""
    file = io.StringIO()
    Console(file=file, width=width, height=60).print(screen(look))
    return [" ".join(line.split()) for line in file.getvalue().splitlines()]


def test_all_of_it_is_there() -> None:
    lines = drawn(LOOK)
    assert lines[0].startswith("nearline standing still generation old-1111aaaa")
    assert lines[1] == "contexts has stood still for 7 s: it has committed nothing"
    assert lines[2] == "cold tier: no answer in time"
    assert "0.4 s - 12.0 s ago - 5,000 70" in lines
    assert "contexts posts 1,234 75.2 s 35.0 1,200.5" in lines
    assert "trending activity - - - -" in lines
    text = "\n".join(lines)
    for part in (
        "old-1111aaaa serving blue",
        "new-2222bbbb building 75% green",
        "serve 812 0",
        "encode-blue-0 not running 4",
        "encode too long 8",
        "all 9",
    ):
        assert part in text
    assert "bad vector" not in text


def test_a_narrow_terminal_shows_the_same_below_one_another() -> None:
    text = "\n".join(drawn(LOOK, width=60))
    assert "serve 812 0" in text
    assert "encode too long 8" in text


def test_states_have_words_and_not_only_colours() -> None:
    ready = STATUS.model_copy(update={"ready": True, "standing_still": []})
    assert " ready " in drawn(LOOK._replace(status=ready))[0]
    assert " not ready " in drawn(LOOK._replace(status=ready.model_copy(update={"ready": False})))[0]
    assert drawn(None) == ["looking …"]


def test_an_instance_that_has_ended_is_waited_for() -> None:
    lines = drawn(Look(at=0.0, problem="nothing runs on /data"))
    assert lines[0].startswith("nearline not running")
    assert lines[1] == "nothing runs on /data"
