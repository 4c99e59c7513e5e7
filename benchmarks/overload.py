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
from indexer.tiers import wall_clock
from retriever.settings import ServeSettings

_TIMES: Final = 10
_CONNECTIONS: Final = 200
_K: Final = 2_000
_IN_A_ROW: Final = 10
"""Answers whose median says that it is as quick as before."""
_AS_BEFORE: Final = 1.5


class Measured(NamedTuple):
    """Answers alone, of as many at the same time as are taken, of the overload, and alone again; resident bytes."""

    idle: list[Answer]
    full: list[Answer]
    over: list[Answer]
    after: list[Answer]
    bytes_before: int
    bytes_after: int
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int, default=200_000)
    parser.add_argument("--hot", type=int, default=50_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each part")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    newest = wall_clock()
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
    address, most = urlsplit(url), ServeSettings().in_flight
    with Load(str(address.hostname), address.port or 0, _requests()) as load:
        load.run(2.0, most)
        idle = load.run(seconds, 1)
        full = load.run(seconds / 2, most)
        before = process.memory_info().rss
        over = load.run(seconds, _CONNECTIONS, _TIMES * 1.02 * _rate(full, seconds / 2))
        after_bytes = process.memory_info().rss
        after = load.run(6.0, 1)
    return Measured(idle, full, over, after, before, after_bytes, seconds)


def _requests() -> list[bytes]:
    """Of members, with their own and their hidden posts left out."""
    bodies = [json.dumps({"member_id": f"author-{number}", "k": _K}).encode() for number in range(QUERIES)]
    head = b"POST /v1/retrieve HTTP/1.1\r\nHost: benchmark\r\nContent-Type: application/json\r\nContent-Length: "
    return [head + b"%d\r\n\r\n%b" % (len(body), body) for body in bodies]


def _rate(answers: list[Answer], seconds: float) -> float:
    return sum(answer.status == 200 for answer in answers) / seconds


def _figures(measured: Measured) -> list[Figure]:
    accepted = [one for one in measured.over if one.status == 200]
    refused = [one for one in measured.over if one.status == 429]
    capacity = _rate(measured.full, measured.seconds / 2)
    idle_p99 = _percentile(measured.idle, 99)
    return [
        Figure("answers/s at most", capacity),
        Figure("requests/s sent / answers/s at most", len(measured.over) / measured.seconds / capacity, _TIMES),
        Figure("answers/s under that load / at most", _rate(measured.over, measured.seconds) / capacity),
        Figure("other answers", len(measured.over) - len(accepted) - len(refused), 0, "at_most"),
        Figure("told to come again: p99, ms", _percentile(refused, 99) * 1e3),
        Figure("answer alone: p50, ms", _percentile(measured.idle, 50) * 1e3),
        Figure("answer alone: p99, ms", idle_p99 * 1e3),
        Figure("answer under load: p50, ms", _percentile(accepted, 50) * 1e3),
        Figure("answer under load: p99, ms", _percentile(accepted, 99) * 1e3),
        Figure("p99 under load / p99 alone", _percentile(accepted, 99) / idle_p99, 3.0, "at_most"),
        Figure("memory after / before", measured.bytes_after / measured.bytes_before, 1.1, "at_most"),
        Figure("seconds until as quick as before", _recovery_s(measured), 5.0, "at_most"),
    ]


def _percentile(answers: list[Answer], percent: float) -> float:
    return float(np.percentile([answer.took_s for answer in answers], percent)) if answers else float("inf")


def _recovery_s(measured: Measured) -> float:
    """From the last answer to the load until some in a row are answered, and half of them in the usual time."""
    over, usual_s = measured.over[-1].at_s, _AS_BEFORE * _percentile(measured.idle, 50)
    for first in range(len(measured.after) - _IN_A_ROW):
        row = measured.after[first : first + _IN_A_ROW]
        if all(one.status == 200 for one in row) and _percentile(row, 50) <= usual_s:
            return row[0].at_s - over
    return float("inf")


if __name__ == "__main__":
    raise SystemExit(main())
