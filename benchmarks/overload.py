"""The retriever gets ten times as many requests as it can answer. It should refuse (HTTP 429) at once what is too much,
answer what it accepts nearly as quickly as without load, not grow in memory, and be as quick as before soon after the
overload. The retriever and the cold tier have their own processes, as in `nearline up`, and are asked over HTTP for
the best 2,000 posts. The process that sends the requests shares the machine's cores with them.

`python -m benchmarks.overload [--posts N] [--hot N] [--seconds S] [--json F]`
"""

import argparse
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from benchmarks.kit.children import child
from benchmarks.kit.http_load import connecting, post
from benchmarks.kit.load import Answer, Load, percentile_s
from benchmarks.kit.table import Figure, report
from benchmarks.retrieval import QUERIES, cold_tier
from retriever.settings import ServeSettings
from schemas.times import now_us

_OVERLOAD: Final = 10
"""Requests sent for each one that can be answered."""
_REFUSED_WITHIN_MS: Final = 50.0
_CONNECTIONS: Final = 200
_ROUNDS: Final = 4
_K: Final = 2_000
_IN_A_ROW: Final = 10
"""The median of so many answers decides whether the retriever is as quick as before."""
_AS_QUICK: Final = 1.5
"""As quick as before: at most so many times the usual median."""


class Round(NamedTuple):
    """The answers of the three parts of a round."""

    full: list[Answer]
    """To as many requests at the same time as the retriever accepts."""
    over: list[Answer]
    """To the overload."""
    alone: list[Answer]
    """To one request after the other."""


class Measured(NamedTuple):
    rounds: list[Round]
    seconds: float
    """Of the overload, and of the requests one after the other. The first part of a round takes half as long."""
    bytes_before: int
    bytes_after: int

    def capacity(self) -> float:
        """Answers/s with as many requests at the same time as the retriever accepts."""
        return sum(_num_answered(round_.full) for round_ in self.rounds) / (self.seconds / 2 * len(self.rounds))

    def alone(self) -> list[Answer]:
        """Answers to one request after the other, without those of the first second, which belong to the recovery."""
        return [answer for round_ in self.rounds for answer in round_.alone if answer.at_s > round_.over[-1].at_s + 1.0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posts", type=int, default=200_000)
    parser.add_argument("--hot", type=int, default=50_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=6.0, help="of overload in each round")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    newest = now_us()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nearline-benchmark-")))
        stack.enter_context(cold_tier(folder, arguments.posts, arguments.dimension, newest))
        numbers = (arguments.posts, arguments.hot, arguments.dimension, QUERIES, newest)
        process, url = stack.enter_context(_serve_process(folder / "cold.sock", numbers))
        measured = _measure(process, url, arguments.seconds)
    return report(_figures(measured), arguments.json)


@contextmanager
def _serve_process(socket: Path, numbers: Sequence[int]) -> Iterator[tuple[psutil.Process, str]]:
    """The process, and its URL."""
    with child("benchmarks.kit.serve_process", socket, *numbers) as serve:
        url, _ = serve.hear().split()
        yield serve.process, url


def _measure(process: psutil.Process, url: str, seconds: float) -> Measured:
    """The parts alternate, so that a slower or faster machine meanwhile affects all of them."""
    accepted = ServeSettings().in_flight
    rounds: list[Round] = []
    requests = itertools.cycle(_requests())
    load = Load(connecting(url))
    load.run(requests, 2.0, accepted)
    before = process.memory_info().rss
    for _ in range(_ROUNDS):
        full = load.run(requests, seconds / 2, accepted)
        rate = 1.05 * _OVERLOAD * _num_answered(full) / (seconds / 2)
        over = load.run(requests, seconds, _CONNECTIONS, rate)
        rounds.append(Round(full, over, load.run(requests, seconds, 1)))
    return Measured(rounds, seconds, before, process.memory_info().rss)


def _requests() -> list[bytes]:
    """Requests that name a member, whose own and hidden posts are left out."""
    return [post("/v1/retrieve", {"member_id": f"author-{number}", "k": _K}) for number in range(QUERIES)]


def _num_answered(answers: list[Answer]) -> int:
    return sum(answer.status == 200 for answer in answers)


def _figures(measured: Measured) -> list[Figure]:
    over = [answer for round_ in measured.rounds for answer in round_.over]
    accepted = [answer for answer in over if answer.status == 200]
    refused = [answer for answer in over if answer.status == 429]
    alone, capacity, took_s = measured.alone(), measured.capacity(), measured.seconds * len(measured.rounds)
    ratio = percentile_s(accepted, 99) / percentile_s(alone, 99)
    return [
        Figure("capacity: answers/s with as many requests at once as it accepts", capacity),
        Figure("overload: requests/s sent / capacity", len(over) / took_s / capacity, _OVERLOAD),
        Figure("overload: answers/s / capacity", len(accepted) / took_s / capacity),
        Figure("overload: answers other than 200 and 429", len(over) - len(accepted) - len(refused), 0, "at_most"),
        Figure("overload: refusal (429) p50, ms", percentile_s(refused, 50) * 1e3),
        Figure("overload: refusal (429) p99, ms", percentile_s(refused, 99) * 1e3, _REFUSED_WITHIN_MS, "at_most"),
        Figure("one request after the other: answer p50, ms", percentile_s(alone, 50) * 1e3),
        Figure("one request after the other: answer p99, ms", percentile_s(alone, 99) * 1e3),
        Figure("overload: answer p50, ms", percentile_s(accepted, 50) * 1e3),
        Figure("overload: answer p99, ms", percentile_s(accepted, 99) * 1e3),
        Figure("answer p99: overload / one after the other", ratio, 3.0, "at_most"),
        Figure("memory of the retriever: after / before", measured.bytes_after / measured.bytes_before, 1.1, "at_most"),
        Figure(
            "seconds after the overload until as quick as before",
            max(map(_recovery_s, measured.rounds)),
            5.0,
            "at_most",
        ),
    ]


def _recovery_s(round_: Round) -> float:
    """Seconds from the last answer of the overload until the first of `_IN_A_ROW` requests in a row that are answered,
    half of them in the usual time; infinity if that never happens."""
    ended_s, usual_s = round_.over[-1].at_s, _AS_QUICK * percentile_s(round_.alone, 50)
    for first in range(len(round_.alone) - _IN_A_ROW):
        row = round_.alone[first : first + _IN_A_ROW]
        if all(answer.status == 200 for answer in row) and percentile_s(row, 50) <= usual_s:
            return row[0].at_s - ended_s
    return float("inf")


if __name__ == "__main__":
    raise SystemExit(main())
