"""What a look shows, as tables. Pure functions; knows neither how it was found out nor the terminal."""

import time
from collections.abc import Iterable, Iterator

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from nearline.top.look import LivingGeneration, Look
from nearline.top.series import Rates, Series
from schemas.api import StageStatus, StatusResponse

_OLD_S = 60.0
"""The objective of freshness: what has waited for longer is shown as late."""
_BAD, _LATE, _GOOD, _FAINT = "bold red", "yellow", "green", "dim"
_UNKNOWN = "-"


def screen(look: Look | None) -> RenderableType:
    """The most important things first: what does not fit on the terminal is cut off below."""
    if look is None:
        return Text("looking …", _FAINT)
    if look.status is None:
        return Group(_top_line(look, "not running", _BAD), Text(look.problem, _BAD), _keys())
    status = look.status
    return Group(
        _headline(look, status),
        *_sentences(status),
        _figures(status),
        _stages(status.stages, look.rates),
        Columns([_generations(look.generations), _processes(status), _letters(status, look.series)], padding=(0, 4)),
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


def _figures(status: StatusResponse) -> Table:
    cold, hot, fresh = status.tiers.cold, status.tiers.hot, status.freshness_s
    table = _table("freshness p50", "p99", "newest change", "hot posts", "cold posts", "cold members")
    table.add_row(
        _seconds(fresh.p50),
        _seconds(fresh.p99),
        _seconds(fresh.newest_age_s, " ago"),
        *map(_number, (hot.posts, cold.posts, cold.members)),
    )
    return table


def _stages(stages: Iterable[StageStatus], rates: Rates) -> Table:
    table = _table("stage", "topic", text=2)
    for name in ("waiting", "oldest", "in/s", "done/s"):
        table.add_column(name, justify="right")
    for stage in stages:
        came, done = rates.came.get(stage.topic), rates.done.get((stage.group, stage.topic))
        age, waiting = _seconds(stage.oldest_age_s), Text(_number(stage.lag), _LATE if stage.lag else "")
        table.add_row(stage.stage, stage.topic, waiting, age, _rate(came), _rate(done))
    return table


def _generations(generations: Iterable[LivingGeneration]) -> Table:
    table = _table("generation", "state", "place", text=3)
    for record, progress in generations:
        share = "" if progress is None else f" {progress.share:.0%}"
        table.add_row(record.id, record.state + share, record.place or "")
    return table


def _processes(status: StatusResponse) -> Table:
    table = _table("process", text=1)
    table.add_column("pid", justify="right")
    table.add_column("restarts", justify="right")
    for process in status.processes:
        pid = Text("not running", _BAD) if process.pid is None else Text(str(process.pid))
        table.add_row(process.name, pid, Text(str(process.restarts), _LATE if process.restarts else ""))
    return table


def _letters(status: StatusResponse, series: Series | None) -> Table:
    """By cause where the monitor knows them."""
    table = _table("dead letters of", "cause", text=2)
    table.add_column("number", justify="right")
    for (stage, cause), number in ({} if series is None else series.letters).items():
        if number:
            table.add_row(stage, cause, Text(str(number), _LATE))
    table.add_row("all", "", _number(status.dead_letters))
    return table


def _keys() -> Text:
    return Text("q quits", _FAINT)


def _table(*header: str, text: int = 0) -> Table:
    """The first `text` columns hold text, the others numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for at, name in enumerate(header):
        table.add_column(name, justify="left" if at < text else "right", no_wrap=True)
    return table


def _number(number: int | None) -> str:
    return _UNKNOWN if number is None else f"{number:,}"


def _rate(rate: float | None) -> str:
    return _UNKNOWN if rate is None else f"{rate:,.1f}"


def _seconds(seconds: float | None, after: str = "") -> Text:
    if seconds is None:
        return Text(_UNKNOWN)
    return Text(f"{seconds:.1f} s{after}", _LATE if seconds > _OLD_S and not after else "")
