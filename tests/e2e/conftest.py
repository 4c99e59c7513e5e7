"""One running pipeline for all end-to-end tests: `nearline up` on a temporary folder with the demo's package. It ends
with the last test of this folder, because it uses the cores even when it is idle.

It holds the events of a small world from the start. Tests add posts and members with ids from `unique`, and never
change those of the world.
"""

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from nearline.demo.world import World, WorldSize, make_world, write_world
from nearline.pipeline import Pipeline
from retriever.client import RetrieverClient
from tests.kit.commands import QuickPipeline
from tests.kit.folders import temporary_data

SIZE = WorldSize(posts=1_200, members=100, activity=6_000)
HOT_POSTS = 600
"""Fewer than there are posts, so that answers come from both tiers."""
ENVIRONMENT = {
    "NEARLINE_TRENDING__INTERVAL_S": "0.5",
    "NEARLINE_HOT__CAPACITY": str(HOT_POSTS),
    "NEARLINE_GENERATIONS__SOAK_S": "2",
    # Tests count what they have sent. `tests/nearline/up/test_up.py` looks at canaries.
    "NEARLINE_MONITOR__CANARY_S": "0",
}


class Running(NamedTuple):
    pipeline: Pipeline
    world: World
    file: Path


@pytest.fixture(scope="package")
def running() -> Iterator[Running]:
    world = make_world(11, datetime.now(UTC) - timedelta(seconds=1), SIZE)
    with temporary_data("nearline-e2e-") as folder:
        file = folder / "world.jsonl"
        with file.open("w", encoding="utf-8") as out:
            write_world(world, out)
        with QuickPipeline(folder / "data", environment=ENVIRONMENT) as pipeline:
            pipeline.run("ingest", file)
            pipeline.wait()
            yield Running(pipeline, world, file)


@pytest.fixture(scope="package")
def pipeline(running: Running) -> Pipeline:
    return running.pipeline


@pytest.fixture
def client(pipeline: Pipeline) -> Iterator[RetrieverClient]:
    with pipeline.client() as client:
        yield client


@pytest.fixture(scope="session")
def unique() -> Callable[[str], str]:
    """A new id with this beginning."""
    numbers = itertools.count()
    return lambda start: f"{start}-{next(numbers)}"
