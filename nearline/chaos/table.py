"""The table of what came of all rounds."""

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
"""The kind of round for which a time is promised."""
_RECOVERY_S: Final = 30.0
_TWO_BATCHES: Final = 2 * EncodeSettings().batch_records

Say = Callable[[str], None]


class Round(NamedTuple):
    """Faults of one kind, how long it took from the last of them until all was searchable, and the judgement."""

    kind: str
    faults: list[str]
    recovery_s: float
    verdict: Verdict
    encoded_twice: int | None = None
    """None where it was not counted."""


def figures(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """Rows as every benchmark writes them."""
    names = dict.fromkeys(name for one in rounds for name in one.verdict.columns())
    found = [
        _figure("faults", sum(len(one.faults) for one in rounds)),
        *(_figure(name, sum(len(one.verdict.columns()[name]) for one in rounds), 0) for name in names),
        _figure("dead letters of outages", max(one.verdict.dead_letters for one in rounds), 0),
    ]
    for kind in dict.fromkeys(one.kind for one in rounds):
        times = [one.recovery_s for one in rounds if one.kind == kind]
        found.append(_figure(f"{kind}: seconds to recover, p50", statistics.median(times)))
        bound = _RECOVERY_S if kind == KILL else None
        found.append(_figure(f"{kind}: seconds to recover, p99", _p99(times), bound))
    if twice := [one.encoded_twice for one in rounds if one.encoded_twice is not None]:
        found.append(_figure("encoded twice by one kill, at most", max(twice), _TWO_BATCHES))
    for name, times in sorted(_times_by_fault(rounds).items()):
        found.append(_figure(f"{name}: seconds to recover, p50", statistics.median(times)))
    for name, number in sorted(Counter(fault for one in rounds for fault in one.faults).items()):
        found.append(_figure(f"times: {name}", number))
    return found


def report(rounds: Sequence[Round], say: Say, json_file: Path | None) -> None:
    """Raises NearlineError where a bound does not hold."""
    rows = figures(rounds)
    for row in rows:
        bound = "" if row["bound"] is None else f"at most {row['bound']:g}"
        say(f"{row['figure']:<64} {row['value']:>10.4g}  {bound:<12} {'' if row['holds'] else 'NO'}")
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=2) + "\n")
    if wrong := [row["figure"] for row in rows if not row["holds"]]:
        raise NearlineError(f"does not hold: {', '.join(wrong)}")


def sentence(verdict: Verdict) -> str:
    sets = (f"{name}: {sorted(ids)[:5]}" for name, ids in verdict.columns().items() if ids)
    return "; ".join([*sets, f"dead letters: {verdict.dead_letters}"])


def _times_by_fault(rounds: Sequence[Round]) -> dict[str, list[float]]:
    """Of rounds with one fault: what it cost is known."""
    times: dict[str, list[float]] = {}
    for one in rounds:
        if len(one.faults) == 1:
            times.setdefault(one.faults[0], []).append(one.recovery_s)
    return times


def _p99(times: Sequence[float]) -> float:
    return sorted(times)[min(len(times) - 1, int(0.99 * len(times)))]


def _figure(name: str, value: float, at_most: float | None = None) -> dict[str, Any]:
    return {"figure": name, "value": value, "bound": at_most, "holds": at_most is None or value <= at_most}
