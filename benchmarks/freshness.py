"""How fresh posts are while half as many posts come in as the encoder can encode. Freshness is the time from the Kafka
timestamp of a post's record until the post is searchable and durable in the cold tier. The model has hidden size 256, 6
layers and random weights; the encoder its default setting, `compile = false`. Where there is a compiler, it is shown
once more with `compile = true`, at half of that encoder's own rate, and without a bound. The load of the default
setting comes once more where the vectors of posts are written for other teams too (`encode.post_vectors`): how long
after its post such a team can read its vector.

`python -m benchmarks.freshness [--seconds S] [--events F] [--json F]`. Texts: the posts in F, or generated.
"""

import argparse
import json
import tempfile
import threading
from pathlib import Path

import numpy as np

from benchmarks.kit.packages import layout, random_package, texts
from benchmarks.kit.pipeline_load import LOAD_PREFIX, encoder_alone, pipeline_load, variant_name, variants
from benchmarks.kit.post_vectors import post_vector_ages_s
from benchmarks.kit.table import Figure, report
from nearline.pipeline import Pipeline
from streams.settings import KafkaSettings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--events", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nearline-benchmark-") as temporary:
        folder = Path(temporary)
        package = random_package(folder / "package", layout(256, 6))
        posts = texts(arguments.events)
        (folder / "texts.json").write_text(json.dumps(posts))
        figures = [
            figure
            for compiled in variants()
            for figure in _measure(folder, package, posts, arguments.seconds, compiled=compiled)
        ]
    return report(figures, arguments.json)


def _measure(folder: Path, package: Path, posts: list[str], seconds: float, *, compiled: bool) -> list[Figure]:
    rate = encoder_alone(package, folder / "texts.json", seconds / 10, compiled=compiled) / 2
    of_variant = folder / ("compiled" if compiled else "default")
    of_variant.mkdir()
    load = pipeline_load(of_variant, package, posts, rate, seconds, compiled=compiled)
    if load.p50_s is None or load.p99_s is None:
        raise SystemExit("nothing became searchable; see the log of nearline up")
    name = variant_name(compiled)
    return [
        Figure(f"{name}: sent: half of the encoder's rate, posts/s", rate),
        Figure(f"{name}: became searchable in both tiers, posts/s", load.rate()),
        Figure(f"{name}: freshness p50, s", load.p50_s),
        Figure(f"{name}: freshness p99, s", load.p99_s, None if compiled else 3.0, "at_most"),
        *([] if compiled else _post_vectors(folder / "post-vectors", package, posts, rate, seconds)),
    ]


def _post_vectors(folder: Path, package: Path, posts: list[str], rate: float, seconds: float) -> list[Figure]:
    num_posts = round(rate * seconds)
    ages_s: dict[str, float] = {}

    def read(pipeline: Pipeline, stop: threading.Event) -> None:
        kafka = KafkaSettings(bootstrap_servers=pipeline.instance.bootstrap_servers)
        ages_s.update(post_vector_ages_s(kafka, LOAD_PREFIX, num_posts, stop))

    folder.mkdir()
    settings = {"NEARLINE_ENCODE__POST_VECTORS": "true"}
    load = pipeline_load(folder, package, posts, rate, seconds, settings=settings, beside=read)
    if load.p99_s is None or not ages_s:
        raise SystemExit("no post became searchable, or no vector was written; see the log of nearline up")
    p50_s, p99_s = (float(np.percentile([*ages_s.values()], percent)) for percent in (50, 99))
    return [
        Figure("with post-vectors: freshness p99, s", load.p99_s),
        Figure(f"with post-vectors: posts without a vector, of {num_posts}", num_posts - len(ages_s), 0, "at_most"),
        Figure("with post-vectors: from a post to its vector in the topic, p50, s", p50_s),
        Figure("with post-vectors: from a post to its vector in the topic, p99, s", p99_s, 3.0, "at_most"),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
