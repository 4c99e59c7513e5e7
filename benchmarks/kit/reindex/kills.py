"""What is wrong with both generations after a backfill beside live events, in which processes are killed at random."""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.kit.reindex.instance import LONG_S, SMALL, begin_building, connections, serving, two_packages
from benchmarks.kit.table import Figure
from nearline.chaos.expected_state import expected_state
from nearline.chaos.expected_vectors import ReEncodedVectors
from nearline.chaos.faults import Adversary
from nearline.chaos.feed import Event, Feed
from nearline.chaos.generation_check import Differences, differences
from nearline.chaos.judge import Judge
from nearline.chaos.retrying import retry_while_away
from nearline.pipeline import Pipeline
from schemas.ids import Generation

_SEED: Final = 20


class KillSizes(NamedTuple):
    events: int
    """Before the backfill. They give more contexts than events, and all of these count for the rate."""
    rate: float
    """Of the backfill, contexts/s, so that it lasts for several kills."""
    live_events: int
    """Between two kills."""
    every_s: float


def kills(folder: Path, sizes: KillSizes) -> list[Figure]:
    """The events are those of `make chaos`: creates, updates and deletes, late and repeated ones, members who leave."""
    package, other = two_packages(folder, SMALL)
    feed = Feed(_SEED, datetime.now(UTC) - timedelta(hours=1))
    events = folder / "events.jsonl"
    events.write_text("".join(f"{line}\n" for line in map(_line, feed.take(sizes.events))))
    with serving(folder, package, events, 2 * sizes.events) as pipeline:
        generation = begin_building(pipeline, other, "--rate", str(sizes.rate))
        killed = _kill_until_ready(pipeline, generation, feed, sizes)
        retry_while_away(lambda: pipeline.wait(LONG_S))
        parts = connections(pipeline)
        of_serving = retry_while_away(lambda: differences(parts, parts.generation, ReEncodedVectors(package)))
        of_built = retry_while_away(lambda: differences(parts, generation, ReEncodedVectors(other)))
        verdict = Judge(pipeline).judge(expected_state(feed.events))
    num_wrong = verdict.dead_letters + sum(map(len, verdict.columns().values()))
    return kill_figures(killed, len(feed.events), of_serving, of_built, num_wrong)


def kill_figures(
    killed: Sequence[str], num_events: int, of_serving: Differences, of_built: Differences, num_wrong: int
) -> list[Figure]:
    figures = [
        Figure("kills: kill -9 of a random process during the backfill", len(killed), 1),
        Figure("kills: events", num_events),
        Figure("kills: what make chaos finds wrong in the serving generation", num_wrong, 0, "at_most"),
    ]
    for name, found in (("serving", of_serving), ("built", of_built)):
        for what, ids in found._asdict().items():
            figures.append(Figure(f"kills: {what} vectors of the {name} generation", len(ids), 0, "at_most"))
    return figures


def _kill_until_ready(pipeline: Pipeline, generation: Generation, feed: Feed, sizes: KillSizes) -> list[str]:
    """Events come in meanwhile, and also while a process is killed."""
    adversary = Adversary(pipeline, _SEED)
    killed: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        while not retry_while_away(lambda: _is_ready(pipeline, generation)):
            sent = pool.submit(_send, pipeline, feed.take(sizes.live_events), sizes.every_s)
            time.sleep(sizes.every_s)
            killed.append(adversary.kill())
            print(killed[-1], flush=True)
            sent.result()
    return killed


def _send(pipeline: Pipeline, events: Sequence[Event], seconds: float) -> None:
    """Over so many seconds. On an error all of them are sent again: an event that is repeated changes nothing."""
    lines = "".join(f"{_line(event)}\n" for event in events)
    rate = str(len(events) / seconds)
    retry_while_away(lambda: pipeline.run("ingest", "-", "--rate", rate, stdin=lines))


def _is_ready(pipeline: Pipeline, generation: Generation) -> bool:
    return bool(pipeline.ask("generations", "show", generation)["state"] == "ready")


def _line(event: Event) -> str:
    return json.dumps(event)
