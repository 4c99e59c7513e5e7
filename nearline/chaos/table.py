"""The table at the end of `nearline chaos`: the figures of all rounds, and the bounds that they must keep."""

import json
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from nearline.chaos.judge import Verdict
from nearline.errors import NearlineError
from streams.settings import EncodeSettings

KILL: Final = "kill -9 of a stage"
"""The kind of round for which a time to recover is promised."""
_RECOVERY_S: Final = 30.0
_TWO_BATCHES: Final = 2 * EncodeSettings().batch_records

Print = Callable[[str], None]


class Round(NamedTuple):
    """Faults of one kind, the seconds from the last fault until everything was searchable, and the judge's verdict."""

    kind: str
    faults: list[str]
    recovery_s: float
    verdict: Verdict
    encoded_twice: int | None = None
    """Contexts that were encoded twice. None where that was not counted."""


def figures(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """Rows in the form that every benchmark writes."""
    names = dict.fromkeys(name for each in rounds for name in each.verdict.columns())
    rows = [
        _figure("faults", sum(len(each.faults) for each in rounds)),
        *(_figure(name, sum(len(each.verdict.columns()[name]) for each in rounds), 0) for name in names),
        _figure("dead letters of outages", max(each.verdict.dead_letters for each in rounds), 0),
    ]
    for kind in dict.fromkeys(each.kind for each in rounds):
        times = [each.recovery_s for each in rounds if each.kind == kind]
        rows.append(_figure(f"{kind}: seconds to recover, p50", statistics.median(times)))
        bound = _RECOVERY_S if kind == KILL else None
        rows.append(_figure(f"{kind}: seconds to recover, p99", _p99(times), bound))
    if twice := [each.encoded_twice for each in rounds if each.encoded_twice is not None]:
        rows.append(_figure("encoded twice by one kill, at most", max(twice), _TWO_BATCHES))
    for name, times in sorted(_times_by_fault(rounds).items()):
        rows.append(_figure(f"{name}: seconds to recover, p50", statistics.median(times)))
    for name, number in sorted(Counter(fault for each in rounds for fault in each.faults).items()):
        rows.append(_figure(f"times: {name}", number))
    return rows


def report(rounds: Sequence[Round], print_line: Print, json_file: Path | None) -> None:
    """Raises NearlineError where a bound does not hold."""
    rows = figures(rounds)
    for row in rows:
        bound = "" if row["bound"] is None else f"at most {row['bound']:g}"
        print_line(f"{row['figure']:<64} {row['value']:>10.4g}  {bound:<12} {'' if row['holds'] else 'NO'}")
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=2) + "\n")
    if wrong := [row["figure"] for row in rows if not row["holds"]]:
        raise NearlineError(f"does not hold: {', '.join(wrong)}")


def sentence(verdict: Verdict) -> str:
    sets = (f"{name}: {sorted(ids)[:5]}" for name, ids in verdict.columns().items() if ids)
    return "; ".join([*sets, f"dead letters: {verdict.dead_letters}"])


def _times_by_fault(rounds: Sequence[Round]) -> dict[str, list[float]]:
    """Only from rounds with one fault, in which the time to recover is that fault's."""
    times: dict[str, list[float]] = {}
    for each in rounds:
        if len(each.faults) == 1:
            times.setdefault(each.faults[0], []).append(each.recovery_s)
    return times


def _p99(times: Sequence[float]) -> float:
    return sorted(times)[min(len(times) - 1, int(0.99 * len(times)))]


def _figure(name: str, value: float, at_most: float | None = None) -> dict[str, Any]:
    return {"figure": name, "value": value, "bound": at_most, "holds": at_most is None or value <= at_most}
