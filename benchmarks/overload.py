"""Ten times as many requests as the retriever can answer: what is too much is refused at once, what is taken is
answered nearly as quickly as ever, memory stays, and when it is over all is as before.

`python -m benchmarks.overload [--posts N] [--hot N] [--seconds S] [--json F]`. The retriever and the cold tier have
their own processes, as in `nearline up`, and are asked over HTTP. The load shares the machine's cores with them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import psutil

from benchmarks._http_load import Answer, Load
from benchmarks._table import Figure, report
from benchmarks.retrieval import QUERIES, cold_tier
from retriever.settings import ServeSettings
from schemas.times import now_us

_TIMES: Final = 10
_CONNECTIONS: Final = 200
_TURNS: Final = 4
_K: Final = 2_000
_IN_A_ROW: Final = 10
"""Answers whose median says that it is as quick as before."""
_AS_BEFORE: Final = 1.5


class Turn(NamedTuple):
    """Answers to as many at the same time as are taken, to the overload, and then to one after the other."""

    full: list[Answer]
    over: list[Answer]
    alone: list[Answer]


class Measured(NamedTuple):
    turns: list[Turn]
    seconds: float
    """Of the overload in each turn, and of what comes after it; the first part takes half of that."""
    bytes_before: int
    bytes_after: int

    def at_most(self) -> float:
        """Answers/s."""
        return sum(_answered(turn.full) for turn in self.turns) / (self.seconds / 2 * len(self.turns))

    def alone(self) -> list[Answer]:
        """Without those of the first second, which belong to the recovery."""
        return [one for turn in self.turns for one in turn.alone if one.at_s > turn.over[-1].at_s + 1.0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int, default=200_000)
    parser.add_argument("--hot", type=int, default=50_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=6.0, help="of overload in each turn")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    newest = now_us()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nearline-benchmark-")))
        stack.enter_context(cold_tier(folder, given.posts, given.dimension, newest))
        numbers = (given.posts, given.hot, given.dimension, newest)
        process, url = stack.enter_context(_served(folder / "cold.sock", numbers))
        measured = _measure(process, url, given.seconds)
    return report(_figures(measured), given.json)


@contextmanager
def _served(socket: Path, numbers: Sequence[int]) -> Iterator[tuple[psutil.Process, str]]:
    command = [sys.executable, "-m", "benchmarks._served", str(socket), *map(str, numbers)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as serve:
        assert serve.stdin is not None
        assert serve.stdout is not None
        yield psutil.Process(serve.pid), serve.stdout.readline().strip()
        serve.stdin.close()


def _measure(process: psutil.Process, url: str, seconds: float) -> Measured:
    """By turns, so that a change of the machine's mood reaches all."""
    address, most = urlsplit(url), ServeSettings().in_flight
    turns: list[Turn] = []
    with Load(str(address.hostname), address.port or 0, _requests()) as load:
        load.run(2.0, most)
        before = process.memory_info().rss
        for _ in range(_TURNS):
            full = load.run(seconds / 2, most)
            over = load.run(seconds, _CONNECTIONS, 1.05 * _TIMES * _answered(full) / (seconds / 2))
            turns.append(Turn(full, over, load.run(seconds, 1)))
        return Measured(turns, seconds, before, process.memory_info().rss)


def _requests() -> list[bytes]:
    """Of members, with their own and their hidden posts left out."""
    bodies = [json.dumps({"member_id": f"author-{number}", "k": _K}).encode() for number in range(QUERIES)]
    head = b"POST /v1/retrieve HTTP/1.1\r\nHost: benchmark\r\nContent-Type: application/json\r\nContent-Length: "
    return [head + b"%d\r\n\r\n%b" % (len(body), body) for body in bodies]


def _answered(answers: list[Answer]) -> int:
    return sum(answer.status == 200 for answer in answers)


def _figures(measured: Measured) -> list[Figure]:
    over = [one for turn in measured.turns for one in turn.over]
    accepted = [one for one in over if one.status == 200]
    refused = [one for one in over if one.status == 429]
    alone, at_most, took_s = measured.alone(), measured.at_most(), measured.seconds * len(measured.turns)
    ratio = _percentile(accepted, 99) / _percentile(alone, 99)
    return [
        Figure("answers/s at most", at_most),
        Figure("requests/s sent / answers/s at most", len(over) / took_s / at_most, _TIMES),
        Figure("answers/s under that load / at most", len(accepted) / took_s / at_most),
        Figure("other answers", len(over) - len(accepted) - len(refused), 0, "at_most"),
        Figure("told to come again: p50, ms", _percentile(refused, 50) * 1e3),
        Figure("told to come again: p99, ms", _percentile(refused, 99) * 1e3),
        Figure("answer alone: p50, ms", _percentile(alone, 50) * 1e3),
        Figure("answer alone: p99, ms", _percentile(alone, 99) * 1e3),
        Figure("answer under load: p50, ms", _percentile(accepted, 50) * 1e3),
        Figure("answer under load: p99, ms", _percentile(accepted, 99) * 1e3),
        Figure("p99 under load / p99 alone", ratio, 3.0, "at_most"),
        Figure("memory after / before", measured.bytes_after / measured.bytes_before, 1.1, "at_most"),
        Figure("seconds until as quick as before, at most", max(map(_recovery_s, measured.turns)), 5.0, "at_most"),
    ]


def _percentile(answers: list[Answer], percent: float) -> float:
    return float(np.percentile([answer.took_s for answer in answers], percent)) if answers else float("inf")


def _recovery_s(turn: Turn) -> float:
    """From the last answer to the load until some in a row are answered, and half of them in the usual time."""
    ended_s, usual_s = turn.over[-1].at_s, _AS_BEFORE * _percentile(turn.alone, 50)
    for first in range(len(turn.alone) - _IN_A_ROW):
        row = turn.alone[first : first + _IN_A_ROW]
        if all(one.status == 200 for one in row) and _percentile(row, 50) <= usual_s:
            return row[0].at_s - ended_s
    return float("inf")


if __name__ == "__main__":
    raise SystemExit(main())
