"""The retriever as a service: how many answers it gives in a second, how long they take when times are hard, and that
they are the right ones. A million posts in the cold tier, the newest 200,000 in the hot one, 128 dimensions. 10,000
members ask for 2,000 posts by Zipf's law over gRPC, each member's vector changes at every 100th of its questions, and
200 writes come in each second. The process that sends the questions shares the machine's cores with the service.

`python -m benchmarks.service [--only NAME ...] [--posts N] [--hot N] [--members N] [--seconds S] [--json F]`

NAME is one of:
  rate       answers/s against the service as it was before gRPC and kept answers, and against FAISS alone
  half       how long answers take at half of that rate
  frozen     the cold tier is frozen for a minute
  overload   ten times as many questions as can be answered
  agreement  kept cold answers against fresh ones
  one        one question, nothing else running (benchmarks/retrieval.py)
  hot        the hot tier alone, of usual size and large: batches, writes beside searches (benchmarks/hot_tier.py)
  restart    ready again with and without a snapshot of the hot tier
"""

import argparse
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.kit.service.agreement import agreement
from benchmarks.kit.service.hard_times import at_half, frozen, overload
from benchmarks.kit.service.rate import K, best_at_once, rate, small_k, whole
from benchmarks.kit.service.restart import restart
from benchmarks.kit.service.setup import Now, Sizes, now
from benchmarks.kit.table import Figure, read_json, report, shown
from schemas.times import now_us

_LIVE: Final = ("rate", "half", "frozen", "overload")
"""They need the whole service and a load on it."""
_ALONE: Final = ("agreement", "one", "hot", "restart")
_WARMING_AT_ONCE: Final = 4
_CALIBRATION_S: Final = 3.0


def main() -> int:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="nearline-benchmark-") as folder:
        figures = list(shown(_figures(arguments, Path(folder))))
    return report(figures, arguments.json)


def _arguments() -> Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = (*_LIVE, *_ALONE)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--posts", type=int, default=1_000_000)
    parser.add_argument("--hot", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--writes", type=float, default=200.0, help="a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each part of a round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--frozen", type=float, default=60.0, help="seconds")
    parser.add_argument("--compared", type=int, default=100_000, help="kept answers")
    parser.add_argument("--restarted", type=int, default=1_000_000, help="posts in the hot tier that starts again")
    parser.add_argument("--large", type=int, default=5_000_000, help="posts in the hot tier alone")
    parser.add_argument("--searches", type=int, default=600, help="in that tier")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _figures(arguments: Namespace, folder: Path) -> Iterator[Figure]:
    only = arguments.only
    if any(name in _LIVE for name in only):
        yield from _live(arguments, folder)
    if "agreement" in only:
        yield from agreement(folder / "agreement", arguments.compared)
    if "one" in only:
        yield from _of("retrieval", folder, "--posts", arguments.posts, "--hot", arguments.hot)
    if "hot" in only:
        yield from _named("hot tier of usual size", _of("hot_tier", folder, "--posts", arguments.hot))
        large = _of("hot_tier", folder, "--posts", arguments.large, "--searches", arguments.searches)
        yield from _named(f"hot tier of {arguments.large:,} posts", large)
    if "restart" in only:
        yield from restart(folder / "restart", arguments.restarted, arguments.dimension, rounds=2)


def _live(arguments: Namespace, folder: Path) -> Iterator[Figure]:
    sizes = Sizes(arguments.posts, arguments.hot, arguments.dimension, arguments.members, arguments.writes, now_us())
    seconds, only = arguments.seconds, arguments.only
    with now(sizes, folder / "now") as service:
        _warm(service)
        at_once = best_at_once(service, min(_CALIBRATION_S, seconds))
        most = len(whole(service.run(seconds, at_once, k=K))) / seconds
        if "rate" in only:
            yield from rate(service, sizes, folder, at_once, seconds, arguments.rounds)
        if "half" in only:
            yield from at_half(service, most, 2 * seconds)
        if "frozen" in only:
            yield from frozen(service, most, arguments.frozen)
        if "overload" in only:
            yield from overload(service, most, seconds)
        if "rate" in only:
            yield from small_k(service, sizes, at_once, seconds, arguments.rounds)


def _warm(service: Now) -> None:
    """Afterwards the cold answers of all members are kept, as after some time with these members. Asks up to three
    times, because on a busy machine the cold tier may be late."""
    for _ in range(3):
        print("every member asks once", flush=True)
        answers = service.ask_each_member(K, _WARMING_AT_ONCE)
        if len(whole(answers)) == len(answers):
            return
    raise RuntimeError(f"{len(answers) - len(whole(answers))} of {len(answers)} answers without load were not whole")


def _named(part: str, figures: Sequence[Figure]) -> list[Figure]:
    return [figure._replace(name=f"{part}: {figure.name}") for figure in figures]


def _of(benchmark: str, folder: Path, *flags: object) -> list[Figure]:
    """The figures of another benchmark, which has the machine for itself."""
    json_path = folder / f"{benchmark}.json"
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", *map(str, flags), "--json", str(json_path)]
    json_path.unlink(missing_ok=True)
    # Its status says whether its bounds hold, which this table says too.
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    if not json_path.exists():
        raise RuntimeError(f"this benchmark failed; its error is above: {' '.join(command)}")
    return read_json(json_path)


if __name__ == "__main__":
    raise SystemExit(main())
