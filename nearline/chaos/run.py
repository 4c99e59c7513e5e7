"""Rounds of feed, faults and judgement on a real pipeline, and the table of what came of them."""

import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from nearline.chaos.faults import Adversary
from nearline.chaos.feed import Event, Feed, expected_end
from nearline.chaos.judge import Judge, Verdict
from nearline.demo.pipeline import CommandFailed, Pipeline
from nearline.errors import NearlineError, NotRunning
from streams import crash_points

RECOVERY_S: Final = 180.0
"""A `nearline wait` that takes longer has failed."""
_FAULTS_A_ROUND: Final = 3
_CRASHES: Final = 2
_PASSING: Final = {"transaction": ("contexts", "encode"), "index": ("cold",)}
"""Which stages pass the crash points of a group."""
_SETS: Final = ("lost", "resurrected", "older", "backwards", "repeated")
_ENVIRONMENT: Final = {"NEARLINE_LOG_LEVEL": "warning", "NEARLINE_HOT__WINDOW_S": str(7 * 24 * 3600)}

Say = Callable[[str], None]


class Round(NamedTuple):
    """Faults of one round, how long it took from the last of them until all was searchable, and the judgement."""

    faults: list[str]
    recovery_s: float
    verdict: Verdict


class Chaos:
    """One pipeline, its feed and its judge. Use `chaos_on`."""

    def __init__(self, pipeline: Pipeline, crash_file: Path, seed: int, say: Say) -> None:
        self._pipeline = pipeline
        self._crash_file = crash_file
        self._random = random.Random(seed)
        self._adversary = Adversary(pipeline, seed)
        self.feed = Feed(seed, datetime.now(UTC) - timedelta(hours=1))
        self.judge = Judge(pipeline)
        self._say = say
        self.rounds: list[Round] = []

    def faults(self, number: int, num_events: int) -> None:
        """So many random faults while about so many events are sent."""
        rounds = -(-number // _FAULTS_A_ROUND)
        for place in range(rounds):
            todo = min(_FAULTS_A_ROUND, number - place * _FAULTS_A_ROUND)
            self._round(num_events // rounds, lambda todo=todo: [self._strike() for _ in range(todo)])  # type: ignore[misc]

    def crash_point(self, name: str, num_events: int) -> None:
        """Every process that passes there leaves, and again on the first pass after its restart."""
        stages = _PASSING[name.partition(".")[0]]
        crash_points.write_file(self._crash_file, name, dict.fromkeys(stages, _CRASHES))
        self._adversary.terminate_all(stages)
        self._round(num_events, lambda: [f"crash at {name}, twice"])
        if left := crash_points.left_in(self._crash_file):
            raise NearlineError(f"the crash point {name} was not passed as often as it should: {left} are left")
        crash_points.write_file(self._crash_file, "", {})

    def _round(self, num_events: int, strike: Callable[[], list[str]]) -> None:
        events = self.feed.take(num_events)
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(self._send, events)
            faults = strike()
            began = time.monotonic()
            sent.result()
        _insist(lambda: self._pipeline.wait(RECOVERY_S))
        recovery_s = time.monotonic() - began
        verdict = self.judge.judge(expected_end(self.feed.events))
        self.rounds.append(Round(faults, recovery_s, verdict))
        self._say(f"{len(self.feed.events):>6} events  {recovery_s:5.1f} s  {'; '.join(faults)}")
        if not verdict.is_good:
            self._say(f"the end is not what it must be: {_sentence(verdict)}")

    def _send(self, events: Sequence[Event]) -> None:
        """Whatever was sent of them before is sent again: a repeat changes nothing."""
        _insist(lambda: self._pipeline.ingest(events))

    def _strike(self) -> str:
        time.sleep(self._random.uniform(0.0, 2.0))
        return self._adversary.strike()


@contextmanager
def chaos_on(seed: int, say: Say) -> Iterator[Chaos]:
    """A pipeline of its own on a temporary folder, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="nearline-chaos-") as temporary:
        crash_file = Path(temporary) / "crash.json"
        crash_points.write_file(crash_file, "", {})
        environment = {**_ENVIRONMENT, crash_points.FILE_VARIABLE: str(crash_file)}
        with Pipeline(Path(temporary) / "data", environment=environment) as pipeline:
            yield Chaos(pipeline, crash_file, seed, say)


def figures(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """Rows as every benchmark writes them."""
    times = sorted(one.recovery_s for one in rounds)
    found = [
        _figure("faults", sum(len(one.faults) for one in rounds)),
        *(_figure(name, sum(len(getattr(one.verdict, name)) for one in rounds), 0) for name in _SETS),
        _figure("dead letters of outages", max(one.verdict.dead_letters for one in rounds), 0),
        _figure("seconds to recover, p50", statistics.median(times)),
        _figure("seconds to recover, p99", times[min(len(times) - 1, int(0.99 * len(times)))], 30),
    ]
    for name, number in sorted(Counter(fault for one in rounds for fault in one.faults).items()):
        found.append(_figure(f"times: {name}", number))
    return found


def report(rounds: Sequence[Round], say: Say, json_file: Path | None) -> None:
    """Raises NearlineError where a bound does not hold."""
    rows = figures(rounds)
    for row in rows:
        bound = "" if row["bound"] is None else f"at most {row['bound']}"
        say(f"{row['figure']:<48} {row['value']:>10.4g}  {bound:<12} {'' if row['holds'] else 'NO'}")
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=2) + "\n")
    if wrong := [row["figure"] for row in rows if not row["holds"]]:
        raise NearlineError(f"does not hold: {', '.join(wrong)}")


def _figure(name: str, value: float, at_most: float | None = None) -> dict[str, Any]:
    return {"figure": name, "value": value, "bound": at_most, "holds": at_most is None or value <= at_most}


def _insist(do: Callable[[], None]) -> None:
    """A command may meet a part that is just away; the promise is that it works when the part is back."""
    deadline = time.monotonic() + RECOVERY_S
    while True:
        try:
            return do()
        except (CommandFailed, NotRunning):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _sentence(verdict: Verdict) -> str:
    sets = (f"{name}: {sorted(getattr(verdict, name))[:5]}" for name in _SETS if getattr(verdict, name))
    return "; ".join([*sets, f"dead letters: {verdict.dead_letters}"])
