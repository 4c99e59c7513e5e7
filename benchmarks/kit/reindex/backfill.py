"""How much of its encoder's rate a backfill reaches, while nothing else is to do."""

from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from benchmarks.kit.packages import layout, random_package
from benchmarks.kit.pipeline_load import encoder_alone, write_posts
from benchmarks.kit.reindex.instance import SMALL, Model, build, connections, seconds_to_ready, serving
from benchmarks.kit.table import Figure


class BackfillSizes(NamedTuple):
    model: Model
    posts: int
    alone_s: float


def backfill(folder: Path, sizes: BackfillSizes, texts_file: Path, texts: list[str]) -> list[Figure]:
    """The encoder alone is measured before and after, because machines drift. The serving package is a small one, so
    that its vectors are made soon; the one that is built has the model."""
    small = random_package(folder / "serving", layout(*SMALL))
    package = random_package(folder / "built", layout(*sizes.model))
    write_posts(folder / "posts.jsonl", texts, range(sizes.posts))
    before = encoder_alone(package, texts_file, sizes.alone_s)
    with serving(folder, small, folder / "posts.jsonl", sizes.posts) as pipeline:
        generation = build(pipeline, package)
        took_s = seconds_to_ready(pipeline.ask("generations", "show", generation)["history"])
        with closing(connections(pipeline).cold(generation=generation)) as cold:
            num_missing = sizes.posts - cold.count("post")
    after = encoder_alone(package, texts_file, sizes.alone_s)
    alone, rate = (before + after) / 2, sizes.posts / took_s
    return [
        Figure("backfill: encoder alone, before it, posts/s", before),
        Figure("backfill: encoder alone, after it, posts/s", after),
        Figure(f"backfill of {sizes.posts:,} posts, from build to ready, posts/s", rate),
        Figure("backfill: posts/s / the encoder alone", rate / alone, 0.85),
        Figure("backfill: posts that are missing in the cold tier", num_missing, 0, "at_most"),
    ]
