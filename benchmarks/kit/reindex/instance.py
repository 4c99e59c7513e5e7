"""An instance of `nearline up` that serves one package, and the commands by which another is built beside it."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.kit.packages import layout, random_package
from benchmarks.kit.pipeline_load import ENCODE_THREADS
from benchmarks.kit.waiting import until
from nearline.ask.connections import Connections
from nearline.pipeline import Pipeline
from nearline.settings.loading import instance_settings
from retriever.errors import RetrieverError
from schemas.api import RetrieveRequest
from schemas.ids import Generation

LONG_S: Final = 6 * 3600.0
"""For what takes as long as it takes."""


class Model(NamedTuple):
    hidden: int
    layers: int


SMALL: Final = Model(128, 1)
"""Where the time that the model takes is not what is measured."""


def two_packages(folder: Path, model: Model) -> tuple[Path, Path]:
    """Of the same layout, with other weights."""
    first, second = (random_package(folder / f"seed-{seed}", layout(*model), seed=seed) for seed in range(2))
    return first, second


@contextmanager
def serving(folder: Path, package: Path, events: Path, num_posts: int, **settings: int) -> Iterator[Pipeline]:
    """An instance that serves the package, with all the events searchable. Its hot tier has room for `num_posts`."""
    environment = {
        "NEARLINE_ENCODE__THREADS": str(ENCODE_THREADS),
        "NEARLINE_HOT__CAPACITY": str(num_posts + 1),
        "NEARLINE_LOG_LEVEL": "warning",
        # What is counted is what was sent here.
        "NEARLINE_MONITOR__CANARY_S": "0",
        **{f"NEARLINE_{name.upper()}": str(value) for name, value in settings.items()},
    }
    with Pipeline(folder / "data", package=package, environment=environment) as pipeline:
        pipeline.run("ingest", events, timeout_s=LONG_S)
        pipeline.wait(LONG_S)
        yield pipeline


def begin_building(pipeline: Pipeline, package: Path, *options: str) -> Generation:
    return Generation(pipeline.ask("generations", "build", package, *options)["id"])


def build(pipeline: Pipeline, package: Path) -> Generation:
    """Returns when it is ready."""
    generation = begin_building(pipeline, package)
    pipeline.run("generations", "build", package, "--wait", timeout_s=LONG_S)
    return generation


def build_and_open(pipeline: Pipeline, package: Path) -> Generation:
    """Returns when it is ready and the retriever holds all of it, so that it can answer at once."""
    generation = build(pipeline, package)
    until_open(pipeline, generation)
    return generation


def until_open(pipeline: Pipeline, generation: str) -> None:
    until(lambda: _is_open(pipeline, generation), f"the retriever to open {generation}")


def seconds_to_ready(history: list[dict[str, Any]]) -> float:
    """From the act by which the newest building began to the one that says that it is complete."""
    began, ready = (
        max(datetime.fromisoformat(act["at"]) for act in history if act["what"] == what) for what in ("build", "ready")
    )
    return (ready - began).total_seconds()


def connections(pipeline: Pipeline) -> Connections:
    return Connections(instance_settings(None, pipeline.data_dir), lambda: pipeline.instance)


def _is_open(pipeline: Pipeline, generation: str) -> bool:
    try:
        with closing(pipeline.client()) as client:
            return not client.retrieve(RetrieveRequest(text="a question", k=1, generation=generation)).partial
    except RetrieverError:
        return False
