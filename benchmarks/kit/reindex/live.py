"""How fresh live posts are during a backfill, and without one."""

import itertools
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from benchmarks.kit.pipeline_load import encoder_alone, write_posts
from benchmarks.kit.reindex.instance import LONG_S, Model, begin_building, serving, two_packages
from benchmarks.kit.table import Figure
from benchmarks.kit.waiting import until
from nearline.pipeline import Pipeline

SHARE = 0.25
"""Of the encoder's rate: so much comes in live."""


class LiveSizes(NamedTuple):
    model: Model
    posts: int
    """Enough that they are not all encoded again while the live ones come in."""
    seconds: float
    alone_s: float


class Fresh(NamedTuple):
    p50_s: float
    p99_s: float


def live(folder: Path, sizes: LiveSizes, texts_file: Path, texts: list[str]) -> list[Figure]:
    """The instance is started again before each of the two measurements, so that the posts before it do not count."""
    package, other = two_packages(folder, sizes.model)
    rate = SHARE * encoder_alone(package, texts_file, sizes.alone_s)
    num_live = round(rate * sizes.seconds)
    files = [folder / name for name in ("posts.jsonl", "without.jsonl", "during.jsonl")]
    starts = (0, sizes.posts, sizes.posts + num_live, sizes.posts + 2 * num_live)
    for file, numbers in zip(files, itertools.pairwise(starts), strict=True):
        write_posts(file, texts, range(*numbers))
    posts, without_file, during_file = files
    with serving(folder, package, posts, starts[-1]) as pipeline:
        _start_again(pipeline)
        without = _fresh(pipeline, without_file, rate, starts[2])
        _start_again(pipeline)
        generation = begin_building(pipeline, other)
        until(lambda: _share_built(pipeline, generation) > 0, "the backfill to begin")
        during = _fresh(pipeline, during_file, rate, starts[3])
        share = _share_built(pipeline, generation)
    if share >= 1:
        raise RuntimeError("the backfill was over before the live posts were; it needs more posts")
    return [
        Figure("live: a quarter of the encoder's rate, posts/s", rate),
        Figure("live: freshness p50 without a backfill, s", without.p50_s),
        Figure("live: freshness p99 without a backfill, s", without.p99_s),
        Figure("live: freshness p50 during a backfill, s", during.p50_s),
        Figure("live: freshness p99 during a backfill, s", during.p99_s),
        Figure("live: share of the backfill that is done at the end", share),
        Figure("live: freshness p99 during a backfill / without", during.p99_s / without.p99_s, 2.0, "at_most"),
    ]


def _start_again(pipeline: Pipeline) -> None:
    pipeline.stop()
    pipeline.start()


def _fresh(pipeline: Pipeline, events: Path, rate: float, num_posts: int) -> Fresh:
    """Of the last 300 seconds, when the serving generation holds so many posts."""
    pipeline.run("ingest", events, "--rate", str(rate), timeout_s=LONG_S)
    with closing(pipeline.client()) as client:
        until(lambda: client.status().tiers.cold.posts == num_posts, "the live posts to be searchable")
        fresh = client.status().freshness_s
    if fresh.p50 is None or fresh.p99 is None:
        raise RuntimeError("nothing became searchable; see the log of nearline up")
    return Fresh(fresh.p50, fresh.p99)


def _share_built(pipeline: Pipeline, generation: str) -> float:
    progress = pipeline.ask("generations", "show", generation)["progress"]
    return 1.0 if progress is None else float(progress["share"])
