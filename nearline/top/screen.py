"""What a look shows, as tables. Pure functions; knows nothing of how it was found out."""

import math
import time
from collections.abc import Iterable, Iterator
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.text import Text

from nearline.top.fitting import LongTable, Row, sentences_within, stacks_within
from nearline.top.look import LivingGeneration, Look
from nearline.top.series import Rates, Series
from schemas.api import StageStatus, StatusResponse

_OLD_S = 60.0
"""The objective of freshness: what has waited for longer is shown as late."""
_BAD, _LATE, _GOOD, _FAINT = "bold red", "yellow", "green", "dim"
_UNKNOWN = "-"
_HEADLINE_AND_KEYS: Final = 2
_LEAST_FOR_TABLES: Final = 6
"""Lines that sentences leave to the tables of stages and processes, if these are not more than half of the terminal."""


def screen(look: Look | None, console: Console) -> RenderableType:
    """The most important things first. Where there is no room for all, it says how much is left out."""
    if look is None:
        return Text("looking …", _FAINT)
    if look.status is None:
        return Group(_top_line(look, "not running", _BAD), Text(look.problem, _BAD), _keys())
    status, figures = look.status, _figures(look.status)
    room = console.height - _HEADLINE_AND_KEYS - figures.num_lines
    # On a small terminal the tables are cut off below, and not what stands still.
    for_sentences = max(room - _LEAST_FOR_TABLES, console.height // 2)
    sentences = sentences_within(list(_sentences(status)), for_sentences, console)
    room -= sum(len(sentence.wrap(console, console.width)) for sentence in sentences)
    stages = _stages(status.stages, look.rates)
    others = stacks_within(console, _generations(look.generations), _processes(status), _letters(status, look.series))
    # The stages have more to say, but a process that does not run is to be seen too.
    for_others = min(others.num_lines, max(room - stages.num_lines, room // 3))
    return Group(
        _headline(look, status),
        *sentences,
        figures.drawn(),
        stages.drawn(room - for_others),
        others.drawn(for_others),
        _keys(),
    )


def _headline(look: Look, status: StatusResponse) -> Text:
    if status.standing_still:
        return _top_line(look, "standing still", _BAD)
    return _top_line(look, "ready", _GOOD) if status.ready else _top_line(look, "not ready", _LATE)


def _top_line(look: Look, state: str, style: str) -> Text:
    generation = "" if look.status is None else f"  generation {look.status.generation or 'unknown'}"
    line = Text.assemble("nearline  ", (state, style), generation)
    return line.append(f"  {time.strftime('%H:%M:%S', time.localtime(look.at))}", _FAINT)


def _sentences(status: StatusResponse) -> Iterator[Text]:
    for sentence in status.standing_still:
        yield Text(sentence, _BAD)
    for problem in status.problems:
        yield Text(problem, _LATE)


def _figures(status: StatusResponse) -> LongTable:
    cold, hot, fresh = status.tiers.cold, status.tiers.hot, status.freshness_s
    row: list[str | Text] = [_seconds(fresh.p50), _seconds(fresh.p99), _seconds(fresh.newest_age_s, " ago")]
    row += map(_number, (hot.posts, cold.posts, cold.members))
    return LongTable(("freshness p50", "p99", "newest change", "hot posts", "cold posts", "cold members"), [Row(row)])


def _stages(stages: Iterable[StageStatus], rates: Rates) -> LongTable:
    """What is not known, and what has waited for the longest, weighs most."""
    rows = []
    for stage in stages:
        came, done = rates.came.get(stage.topic), rates.done.get((stage.group, stage.topic))
        age, waiting = _seconds(stage.oldest_age_s), Text(_number(stage.lag), _LATE if stage.lag else "")
        weight = (float(stage.lag is None), stage.oldest_age_s or 0.0, float(stage.lag or 0))
        rows.append(Row((stage.stage, stage.topic, waiting, age, _rate(came), _rate(done)), weight))
    return LongTable(("stage", "topic", "waiting", "oldest", "in/s", "done/s"), rows, num_text=2)


def _generations(generations: Iterable[LivingGeneration]) -> LongTable:
    rows = []
    for record, progress in generations:
        share = "" if progress is None else f" {progress.share:.0%}"
        weight = (float(record.state == "serving"),)
        rows.append(Row((record.id, record.state + share, record.place or ""), weight))
    return LongTable(("generation", "state", "place"), rows, num_text=3)


def _processes(status: StatusResponse) -> LongTable:
    rows = []
    for process in status.processes:
        pid = Text("not running", _BAD) if process.pid is None else Text(str(process.pid))
        restarts = Text(str(process.restarts), _LATE if process.restarts else "")
        rows.append(Row((process.name, pid, restarts), (float(process.pid is None), float(process.restarts))))
    return LongTable(("process", "pid", "restarts"), rows, num_text=1)


def _letters(status: StatusResponse, series: Series | None) -> LongTable:
    """By cause where the monitor knows them."""
    rows = [
        Row((stage, cause, Text(str(number), _LATE)), (float(number),))
        for (stage, cause), number in ({} if series is None else series.letters).items()
        if number
    ]
    total = Row(("all", "", _number(status.dead_letters)), (math.inf,))
    return LongTable(("dead letters of", "cause", "number"), [*rows, total], num_text=2)


def _keys() -> Text:
    return Text("q quits", _FAINT)


def _number(number: int | None) -> str:
    return _UNKNOWN if number is None else f"{number:,}"


def _rate(rate: float | None) -> str:
    return _UNKNOWN if rate is None else f"{rate:,.1f}"


def _seconds(seconds: float | None, after: str = "") -> Text:
    if seconds is None:
        return Text(_UNKNOWN)
    return Text(f"{seconds:.1f} s{after}", _LATE if seconds > _OLD_S and not after else "")
