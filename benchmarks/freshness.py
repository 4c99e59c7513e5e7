"""How fresh posts are while half as many posts come in as the encoder can encode. Freshness is the time from the Kafka
timestamp of a post's record until the post is searchable and durable in the cold tier. The model has hidden size 256, 6
layers and random weights.

`python -m benchmarks.freshness [--seconds S] [--events F] [--json F]`. Texts: the posts in F, or generated.
"""

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.kit.packages import layout, random_package, texts
from benchmarks.kit.pipeline_load import encoder_alone, pipeline_load
from benchmarks.kit.table import Figure, report


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
        rate = encoder_alone(package, folder / "texts.json", arguments.seconds / 10) / 2
        load = pipeline_load(folder, package, posts, rate, arguments.seconds)
    if load.p50_s is None or load.p99_s is None:
        raise SystemExit("nothing became searchable; see the log of nearline up")
    return report(
        [
            Figure("sent: half of the encoder's rate, posts/s", rate),
            Figure("became searchable in both tiers, posts/s", load.rate()),
            Figure("freshness p50, s", load.p50_s),
            Figure("freshness p99, s", load.p99_s, 3.0, "at_most"),
        ],
        arguments.json,
    )


if __name__ == "__main__":
    raise SystemExit(main())
