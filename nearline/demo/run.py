"""What `make demo` runs: a whole pipeline on a made-up world, or on a file of events.

    python -m nearline.demo.run [--events FILE] [--package FOLDER]

Starts the pipeline as a user would, shows what becomes of the events, and leaves nothing behind.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import click

from nearline.demo.events import read_facts
from nearline.demo.job import Input, Job
from nearline.demo.replacement import SOAK_S, show_replacement
from nearline.demo.world import DEMO_SIZE, WorldSize, make_world, write_world
from nearline.errors import NearlineError
from nearline.pipeline import Pipeline
from retriever.errors import RetrieverError
from streams.errors import StreamsError

SEED: Final = 7
_CANARIES: Final = 4
"""Posts of the monitor, one for each partition, which have room beside those of the world."""


def made_up(folder: Path, size: WorldSize = DEMO_SIZE) -> Input:
    """Writes a made-up world into the folder."""
    world = make_world(SEED, datetime.now(UTC) - timedelta(seconds=1), size)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "world.jsonl"
    with file.open("w", encoding="utf-8") as out:
        write_world(world, out)
    return Input(file, read_facts(file), world.truth)


@contextmanager
def _folder(data_dir: Path | None) -> Iterator[Path]:
    """The data folder. Without `data_dir` a temporary one, which is removed afterwards."""
    if data_dir is not None:
        yield data_dir
        return
    with tempfile.TemporaryDirectory(prefix="nearline-demo-") as temporary:
        yield Path(temporary) / "data"


def demo(events: Path | None, package: Path | None, data_dir: Path | None) -> None:
    """Raises NearlineError with what went wrong."""
    began = time.monotonic()
    with _folder(data_dir) as folder:
        input_ = made_up(folder) if events is None else Input(events, read_facts(events), None)
        _introduce(input_, events)
        environment = {
            "NEARLINE_HOT__CAPACITY": str(input_.facts.hot_posts + _CANARIES),
            "NEARLINE_GENERATIONS__SOAK_S": str(SOAK_S),
        }
        pipeline = Pipeline(folder, package=package, environment=environment)
        click.echo(f"Starting a broker and the pipeline on {pipeline.data_dir} …")
        start = time.monotonic()
        with pipeline:
            click.echo(f"ready after {time.monotonic() - start:.1f} s")
            Job(pipeline, input_).run()
            show_replacement(pipeline, input_)
            stop = time.monotonic()
        click.echo(f"\nEverything stopped in {time.monotonic() - stop:.1f} s; no process is left.")
    click.echo(f"The demo took {time.monotonic() - began:.0f} s.")


def _introduce(input_: Input, events: Path | None) -> None:
    facts = input_.facts
    name = events.name if events is not None else f"A made-up world of {DEMO_SIZE.members} members"
    click.echo(f"{name}: {facts.num_events:,} events, {len(facts.created_us):,} posts, moved so that the last is now.")
    click.echo(f"The hot tier holds the {facts.hot_posts:,} posts that changed last.")


@click.command()
@click.option("--events", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="JSON lines, or .gz")
@click.option(
    "--package", type=click.Path(path_type=Path, exists=True, file_okay=False), help="a model package; else ours"
)
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="keep what is written, here")
def main(events: Path | None, package: Path | None, data_dir: Path | None) -> None:
    """Run the main job on a made-up world, or on a file of events that are moved to now.

    Example: python -m nearline.demo.run --events events.jsonl.gz
    """
    try:
        demo(events, package, data_dir)
    except (NearlineError, StreamsError, RetrieverError) as error:
        click.echo(f"the demo failed: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
