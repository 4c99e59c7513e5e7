"""What a look shows, drawn into a text."""

import io

import pytest
from rich.console import Console
from rich.screen import Screen

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


def drawn(look: Look | None, width: int = 140, height: int = 60) -> list[str]:
    """The words of each line."""
    file = io.StringIO()
    console = Console(file=file, width=width, height=height)
    console.print(screen(look, console))
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


def busy_look() -> Look:
    """More than fits on a small terminal, and what matters stands last everywhere."""
    waits = {"index": (700, 900.0), "replay-index-posts": (None, None)}
    stages = [
        StageStatus(
            stage="encode", group="encode", topic=f"replay-encode-members.demo-{number}", lag=0, oldest_age_s=None
        )
        for number in range(14)
    ]
    stages += [
        StageStatus(stage="index", group="index", topic=f"{topic}.demo-b6d41035", lag=lag, oldest_age_s=age_s)
        for topic, (lag, age_s) in waits.items()
    ]
    processes = [ProcessStatus(name=f"contexts-{number}", pid=4_000_000 + number, restarts=0) for number in range(8)]
    processes += [
        ProcessStatus(name="cold-blue", pid=77, restarts=3),
        ProcessStatus(name="serve", pid=None, restarts=0),
    ]
    status = STATUS.model_copy(update={"stages": stages, "processes": processes})
    return LOOK._replace(status=status)


def test_a_small_terminal_shows_what_matters_and_how_much_more_there_is() -> None:
    lines = drawn(busy_look(), width=80, height=24)
    assert len(lines) <= 24
    assert (lines[0][:8], lines[-1]) == ("nearline", "q quits")
    assert "index index.demo-b6d41035 700 900.0 s - -" in lines, "what has waited for longest"
    assert "index replay-index-posts.demo-b6d41035 - - - -" in lines, "what is not known"
    shown = sum(line.startswith(("encode replay", "index ")) for line in lines)
    assert f"and {16 - shown} more" in lines
    assert shown >= 6
    text = "\n".join(lines)
    assert "serve not running 0" in text
    assert "cold-blue 77 3" in text
    processes = sum(text.count(f"contexts-{number} ") for number in range(8)) + 2
    assert any(line.endswith(f"and {10 - processes} more") for line in lines)
    assert "new-2222bbbb building 75% green" in text
    tall = drawn(busy_look(), width=80)
    assert not any("more" in line for line in tall)
    assert tall[-1] == "q quits"


@pytest.mark.parametrize("height", [5, 12, 24])
def test_many_long_sentences_leave_room_for_the_tables(height: int) -> None:
    sentences = [f"stage {number} has stood still " + "for many words " * 9 for number in range(9)]
    look = LOOK._replace(status=STATUS.model_copy(update={"standing_still": sentences}))
    lines = drawn(look, width=80, height=height)
    assert lines[1].startswith("stage 0 has stood still")
    shown = sum(line.startswith("stage ") and "has stood still" in line for line in lines)
    assert f"and {9 + len(STATUS.problems) - shown} more" in lines
    if height > 12:
        assert len(lines) <= height
        assert shown > 2
        assert "contexts posts 1,234 75.2 s 35.0 1,200.5" in lines


@pytest.mark.parametrize("height", range(1, 13))
def test_a_very_small_terminal_shows_first_what_stands_still(height: int) -> None:
    sentences = [f"{stage} has stood still for 7 s" for stage in ("contexts", "encode", "index")]
    look = busy_look()
    assert look.status is not None
    look = look._replace(status=look.status.model_copy(update={"standing_still": sentences}))
    console = Console(file=io.StringIO(), width=80, height=height)
    with console.capture() as capture:
        console.print(Screen(screen(look, console)))  # as on a terminal, where what is below is cut off
    first, *below = [" ".join(line.split()) for line in capture.get().splitlines()]
    assert first.startswith("nearline standing still")
    assert len(below) == height - 1
    shown = below[: max(0, height // 2 - 1)]
    assert shown[:3] == sentences[: len(shown)]
    assert height < 2 or below[0] == sentences[0]


def test_states_have_words_and_not_only_colours() -> None:
    ready = STATUS.model_copy(update={"ready": True, "standing_still": []})
    assert " ready " in drawn(LOOK._replace(status=ready))[0]
    assert " not ready " in drawn(LOOK._replace(status=ready.model_copy(update={"ready": False})))[0]
    assert drawn(None) == ["looking …"]


def test_an_instance_that_has_ended_is_waited_for() -> None:
    lines = drawn(Look(at=0.0, problem="nothing runs on /data"))
    assert lines[0].startswith("nearline not running")
    assert lines[1] == "nothing runs on /data"
