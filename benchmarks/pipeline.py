"""How much of its encoder's rate the whole pipeline reaches: posts/s from `ingest` to both tiers, divided by posts/s of
the encoder alone. Both get the same texts and two encode threads; the rest of the pipeline shares the same cores. The
encoder alone is measured before and after, because machines drift. The pipeline is sent 1.2 times as many posts as the
encoder can encode, and no queries. Models have random weights. The encoder has its default setting,
`compile = false`; the smaller model is also shown with `compile = true`, without a bound.

`python -m benchmarks.pipeline [--seconds S] [--hidden N…] [--events F] [--json F]`. Texts come from the posts in F, or
are generated.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.kit.packages import layout, random_package, texts
from benchmarks.kit.pipeline_load import encoder_alone, pipeline_load, variant_name, variants
from benchmarks.kit.table import Figure, report

MODELS: Final = ((256, 6, 0.8), (768, 12, 0.9))
"""Hidden size, layers, and the required share of the encoder's rate."""
OVERLOAD: Final = 1.2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--events", type=Path)
    parser.add_argument(
        "--hidden",
        type=int,
        nargs="*",
        default=[hidden for hidden, _, _ in MODELS],
        help="models to measure",
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures: list[Figure] = []
    for hidden, layers, bound in (model for model in MODELS if model[0] in arguments.hidden):
        figures += _measure(hidden, layers, bound, arguments.seconds, arguments.events)
    if MODELS[0][0] in arguments.hidden and True in variants():
        hidden, layers, _ = MODELS[0]
        figures += _measure(hidden, layers, None, arguments.seconds, arguments.events, compiled=True)
    return report(figures, arguments.json)


def _measure(
    hidden: int, layers: int, bound: float | None, seconds: float, events: Path | None, *, compiled: bool = False
) -> list[Figure]:
    name = f"hidden size {hidden}, {layers} layers, {variant_name(compiled)}"
    with tempfile.TemporaryDirectory(prefix="nearline-benchmark-") as temporary:
        folder = Path(temporary)
        package = random_package(folder / "package", layout(hidden, layers))
        posts = texts(events)
        (folder / "texts.json").write_text(json.dumps(posts))
        before = encoder_alone(package, folder / "texts.json", seconds / 5, compiled=compiled)
        rate = pipeline_load(folder, package, posts, OVERLOAD * before, seconds, compiled=compiled).rate()
        after = encoder_alone(package, folder / "texts.json", seconds / 5, compiled=compiled)
    alone = (before + after) / 2
    return [
        Figure(f"{name}: encoder alone, before the pipeline, posts/s", before),
        Figure(f"{name}: encoder alone, after it, posts/s", after),
        Figure(f"{name}: whole pipeline, posts/s", rate),
        Figure(f"{name}: whole pipeline / encoder alone", rate / alone, bound),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
