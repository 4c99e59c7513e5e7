"""Memory under a steady load, while the broker pauses and the cold tier fails now and then. Nothing is killed.

`python -m benchmarks.steady [--minutes M] [--rate R] [--json F]`. The same posts change over and over, so that what the
tiers hold does not grow: what grows is a leak. Memory is resident memory without pages of files, which the kernel takes
back when it wants them (the embedded engine maps 32 MB of its log, and uses them up one after the other); the median
of some looks.
"""

import argparse
import json
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from benchmarks._packages import texts
from benchmarks._table import Figure, report
from nearline.chaos.flaky_cold_tier import write_cold_faults
from nearline.chaos.process import cold_faults_file
from nearline.chaos.up import breakable_pipeline
from nearline.pipeline import Pipeline
from nearline.up.runtime import BROKER
from retriever.errors import RetrieverError
from schemas.api import RetrieveRequest

_POSTS: Final = 2_000
_LIKED: Final = 10
"""Posts; so that after some minutes nobody's history grows."""
_MEMBERS: Final = 200
_AUTHOR: Final = "author"
_LOOK_EVERY_S: Final = 2.0
_PRINT_EVERY: Final = 60
_TROUBLE_EVERY_S: Final = 60.0
_PAUSE_S: Final = 3.0
_COLD_AWAY_S: Final = 5.0
_QUARTER: Final = (0.2, 0.3)
_END: Final = (0.9, 1.0)
"""Shares of the time in which memory is looked at."""
_GROWTH: Final = 1.1


class Look(NamedTuple):
    """Bytes of each process, and how often one had to be started again."""

    share: float
    memory: dict[str, int]
    restarts: dict[str, int]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--rate", type=float, default=40.0, help="events/s")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    return report(_measure(60 * arguments.minutes, arguments.rate), arguments.json)


def _measure(seconds: float, rate: float) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="nearline-benchmark-") as temporary:
        folder = Path(temporary)
        data_dir, load = folder / "data", folder / "load.jsonl"
        cold_faults = cold_faults_file(data_dir)
        with breakable_pipeline(data_dir, {"NEARLINE_LOG_LEVEL": "warning"}) as pipeline, ThreadPoolExecutor(1) as pool:
            _write_load(load, round(seconds * rate), rate)
            sent = pool.submit(pipeline.run, "ingest", load, "--rate", str(rate), timeout_s=seconds + 600)
            looks, troubles = _look_on(pipeline, cold_faults, seconds, sent)
            sent.result()
            pipeline.wait()
    return [*_figures(looks), Figure("pauses of the broker, outages of the cold tier", troubles)]


def _figures(looks: Sequence[Look]) -> Iterator[Figure]:
    for name in looks[-1].memory:
        quarter, end = (_median_mb(looks, name, window) for window in (_QUARTER, _END))
        yield Figure(f"{name}: MB after a quarter of the time", quarter)
        yield Figure(f"{name}: MB at the end", end)
        yield Figure(f"{name}: at the end / after a quarter", end / quarter, _GROWTH, "at_most")
    yield Figure("processes that were started again", sum(looks[-1].restarts.values()), 0, "at_most")


def _median_mb(looks: Sequence[Look], name: str, window: tuple[float, float]) -> float:
    first, last = window
    return statistics.median(look.memory[name] for look in looks if first <= look.share <= last) / 1e6


def _look_on(pipeline: Pipeline, cold_faults: Path, seconds: float, sent: "Future[str]") -> tuple[list[Look], int]:
    """Looks and asks, and makes trouble of both kinds in turn, until all is sent."""
    began = time.monotonic()
    looks: list[Look] = []
    made = 0
    with closing(pipeline.client()) as client:
        while not sent.done():
            with suppress(RetrieverError):
                client.retrieve(RetrieveRequest(text=f"question {len(looks)}", k=100))
            now_s = time.monotonic() - began
            looks.append(_look(pipeline, now_s / seconds))
            if len(looks) % _PRINT_EVERY == 0:
                _print(looks[-1])
            if now_s >= (made + 1) * _TROUBLE_EVERY_S / 2:
                _pause_broker(pipeline) if made % 2 else _cold_away(cold_faults)
                made += 1
            time.sleep(_LOOK_EVERY_S)
    return looks, made


def _look(pipeline: Pipeline, share: float) -> Look:
    instance = pipeline.instance
    pids = {"nearline up": instance.supervisor_pid, **{one.name: one.pid for one in instance.processes}}
    infos = {name: psutil.Process(pid).memory_info() for name, pid in pids.items() if pid is not None}
    memory = {name: info.rss - info.shared for name, info in infos.items()}
    return Look(share, memory, {one.name: one.restarts for one in instance.processes})


def _print(look: Look) -> None:
    sizes = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in look.memory.items())
    again = ", ".join(f"{name} {number}" for name, number in look.restarts.items() if number)
    print(f"{look.share:.0%}: {sizes}; started again: {again or 'none'}", flush=True)


def _pause_broker(pipeline: Pipeline) -> None:
    (broker,) = (psutil.Process(one.pid) for one in pipeline.instance.processes if one.name == BROKER)
    broker.send_signal(signal.SIGSTOP)
    time.sleep(_PAUSE_S)
    broker.send_signal(signal.SIGCONT)


def _cold_away(cold_faults: Path) -> None:
    write_cold_faults(cold_faults, 1)
    time.sleep(_COLD_AWAY_S)
    write_cold_faults(cold_faults, 0)


def _write_load(file: Path, num_events: int, rate: float) -> None:
    """Each post is made once and then changed in turn; every fourth event is a like."""
    randomly, bodies = random.Random(0), texts(None)
    start = datetime.now(UTC)
    with file.open("w", encoding="utf-8") as out:
        # A deleted author: else each post would also be encoded as a piece of its author's history.
        out.write(json.dumps({"type": "member.deleted", "member_id": _AUTHOR, "at": _moment(start)}) + "\n")
        for number in range(num_events):
            event = {"post_id": f"steady-{number % _POSTS}", "at": _moment(start + timedelta(seconds=number / rate))}
            if number >= _POSTS and number % 4 == 0:
                event |= {"type": "activity", "post_id": f"steady-{randomly.randrange(_LIKED)}", "action": "like"}
                event |= {"member_id": f"m-{randomly.randrange(_MEMBERS)}"}
            else:
                text = f"{number} {bodies[number % len(bodies)]}"
                event |= {"type": "post.updated", "author_id": _AUTHOR, "text": text, "created_at": _moment(start)}
            out.write(json.dumps(event) + "\n")


def _moment(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


if __name__ == "__main__":
    raise SystemExit(main())
