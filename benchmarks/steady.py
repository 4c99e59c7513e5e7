"""Whether any process leaks memory under a steady load, while the broker pauses and the cold tier fails now and then.
Nothing is killed. The same posts change again and again, so that what the tiers hold does not grow: memory that grows
is leaked. MB are medians of resident memory without pages of files, which the kernel takes back when it needs them
(the embedded engine maps 32 MB of its log and touches the pages one after the other).

`python -m benchmarks.steady [--minutes M] [--rate R] [--json F]`
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

from benchmarks.kit.packages import texts
from benchmarks.kit.table import Figure, report
from nearline.chaos.flaky_cold_tier import write_cold_faults
from nearline.chaos.process import cold_faults_file
from nearline.chaos.up import BreakablePipeline
from nearline.pipeline import Pipeline
from nearline.up.runtime import BROKER
from retriever.errors import RetrieverError
from schemas.api import RetrieveRequest

_POSTS: Final = 2_000
_LIKED: Final = 10
"""Posts that get likes. They are few, so that after some minutes no member's history grows any more."""
_MEMBERS: Final = 200
_AUTHOR: Final = "author"
_SAMPLE_EVERY_S: Final = 2.0
_PRINT_EVERY: Final = 60
_FAULT_PAIR_EVERY_S: Final = 60.0
_PAUSE_S: Final = 3.0
_COLD_AWAY_S: Final = 5.0
_QUARTER: Final = (0.2, 0.3)
_END: Final = (0.9, 1.0)
"""In these parts of the time memory is compared."""
_GROWTH: Final = 1.1


class Sample(NamedTuple):
    share: float
    """Of the time that has passed."""
    memory: dict[str, int]
    """Bytes, by process."""
    restarts: dict[str, int]
    """By process."""


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
        with BreakablePipeline(data_dir, {"NEARLINE_LOG_LEVEL": "warning"}) as pipeline, ThreadPoolExecutor(1) as pool:
            _write_load(load, round(seconds * rate), rate)
            sent = pool.submit(pipeline.run, "ingest", load, "--rate", str(rate), timeout_s=seconds + 600)
            samples, num_faults = _watch(pipeline, cold_faults, seconds, sent)
            sent.result()
            pipeline.wait()
    return [*_figures(samples), Figure("faults: pauses of the broker and outages of the cold tier", num_faults)]


def _figures(samples: Sequence[Sample]) -> Iterator[Figure]:
    for name in samples[-1].memory:
        quarter, end = (_median_mb(samples, name, window) for window in (_QUARTER, _END))
        yield Figure(f"{name}: memory after a quarter of the time, MB", quarter)
        yield Figure(f"{name}: memory at the end, MB", end)
        yield Figure(f"{name}: memory at the end / after a quarter", end / quarter, _GROWTH, "at_most")
    yield Figure("restarts of processes", sum(samples[-1].restarts.values()), 0, "at_most")


def _median_mb(samples: Sequence[Sample], name: str, window: tuple[float, float]) -> float:
    first, last = window
    return statistics.median(sample.memory[name] for sample in samples if first <= sample.share <= last) / 1e6


def _watch(pipeline: Pipeline, cold_faults: Path, seconds: float, sent: "Future[str]") -> tuple[list[Sample], int]:
    """Takes samples and sends queries until all events are sent. Broker and cold tier fail in turn meanwhile."""
    start_s = time.monotonic()
    samples: list[Sample] = []
    num_faults = 0
    with closing(pipeline.client()) as client:
        while not sent.done():
            with suppress(RetrieverError):
                client.retrieve(RetrieveRequest(text=f"question {len(samples)}", k=100))
            now_s = time.monotonic() - start_s
            samples.append(_sample(pipeline, now_s / seconds))
            if len(samples) % _PRINT_EVERY == 0:
                _print(samples[-1])
            if now_s >= (num_faults + 1) * _FAULT_PAIR_EVERY_S / 2:
                _pause_broker(pipeline) if num_faults % 2 else _cold_away(cold_faults)
                num_faults += 1
            time.sleep(_SAMPLE_EVERY_S)
    return samples, num_faults


def _sample(pipeline: Pipeline, share: float) -> Sample:
    instance = pipeline.instance
    pids = {"nearline up": instance.supervisor_pid, **{process.name: process.pid for process in instance.processes}}
    infos = {name: psutil.Process(pid).memory_info() for name, pid in pids.items() if pid is not None}
    memory = {name: info.rss - info.shared for name, info in infos.items()}
    return Sample(share, memory, {process.name: process.restarts for process in instance.processes})


def _print(sample: Sample) -> None:
    sizes = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in sample.memory.items())
    again = ", ".join(f"{name} {number}" for name, number in sample.restarts.items() if number)
    print(f"{sample.share:.0%}: {sizes}; restarts: {again or 'none'}", flush=True)


def _pause_broker(pipeline: Pipeline) -> None:
    (broker,) = (psutil.Process(process.pid) for process in pipeline.instance.processes if process.name == BROKER)
    broker.send_signal(signal.SIGSTOP)
    time.sleep(_PAUSE_S)
    broker.send_signal(signal.SIGCONT)


def _cold_away(cold_faults: Path) -> None:
    write_cold_faults(cold_faults, 1)
    time.sleep(_COLD_AWAY_S)
    write_cold_faults(cold_faults, 0)


def _write_load(file: Path, num_events: int, rate: float) -> None:
    """Creates each post once and then changes one after the other; every fourth event is a like."""
    rng, bodies = random.Random(0), texts(None)
    start = datetime.now(UTC)
    with file.open("w", encoding="utf-8") as out:
        # The author is deleted; otherwise each post would be encoded again as an entry of its author's history.
        out.write(json.dumps({"type": "member.deleted", "member_id": _AUTHOR, "at": _moment(start)}) + "\n")
        for number in range(num_events):
            event = {"post_id": f"steady-{number % _POSTS}", "at": _moment(start + timedelta(seconds=number / rate))}
            if number >= _POSTS and number % 4 == 0:
                event |= {"type": "activity", "post_id": f"steady-{rng.randrange(_LIKED)}", "action": "like"}
                event |= {"member_id": f"m-{rng.randrange(_MEMBERS)}"}
            else:
                text = f"{number} {bodies[number % len(bodies)]}"
                event |= {"type": "post.updated", "author_id": _AUTHOR, "text": text, "created_at": _moment(start)}
            out.write(json.dumps(event) + "\n")


def _moment(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


if __name__ == "__main__":
    raise SystemExit(main())
