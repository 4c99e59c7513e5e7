"""What operators get and what it costs: whether lag is right, how quickly they are answered while the broker is down,
how soon an alert fires, how many series there are, how heavy the page is, and what all of it takes from the pipeline.
Real instances of `nearline up`; models have random weights.

`python -m benchmarks.operators [--only PART ...] [--quick] [--events F] [--json F]`. Texts come from the posts in F, or
are generated.

PART is one of:
  cost     posts/s with the monitor, metrics that are scraped, canaries and online recall, against none of them
  lag      the lag that is shown against records that are counted
  down     status, page and metrics while the broker is frozen
  series   of all processes, with two generations
  page     its weight, and the time to its first numbers
  stopped  from a stopped stage to the page that shows it
  alert    from a stopped stage to its alert in a real Prometheus
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.kit.operators.cost import CostSizes, cost
from benchmarks.kit.operators.down import DownSizes, down
from benchmarks.kit.operators.lag import LagSizes, lag
from benchmarks.kit.operators.page import page, series, stopped_stages
from benchmarks.kit.packages import texts
from benchmarks.kit.pipeline_load import write_posts
from benchmarks.kit.reindex.instance import SMALL, Model, serving, two_packages
from benchmarks.kit.symptoms import CannotProduce, produce
from benchmarks.kit.table import Figure, report, shown
from nearline.pipeline import Pipeline

PARTS: Final = ("cost", "lag", "down", "series", "page", "stopped", "alert")
_OF_ONE_INSTANCE: Final = ("lag", "down", "page", "stopped", "series")
"""In this order: the second generation comes last."""


class Sizes(NamedTuple):
    cost: CostSizes
    posts: int
    """Of the instance at which the others look."""
    lag: LagSizes
    down: DownSizes


WHOLE: Final = Sizes(
    CostSizes(Model(256, 6), 300.0, 60.0, 3, 15.0, 10.0), 20_000, LagSizes(100.0, 1_000), DownSizes(200)
)
QUICK: Final = Sizes(CostSizes(SMALL, 8.0, 1.0, 1, 1.0, 1.0), 300, LagSizes(20.0, 100), DownSizes(5))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    parser.add_argument("--quick", action="store_true", help="small sizes: whether it works, not what it costs")
    parser.add_argument("--events", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sizes, posts = QUICK if arguments.quick else WHOLE, texts(arguments.events)
    with tempfile.TemporaryDirectory(prefix="nearline-benchmark-") as temporary:
        figures = list(shown(_measured(Path(temporary), arguments.only, sizes, posts)))
    return report(figures, arguments.json)


def _measured(folder: Path, parts: Sequence[str], sizes: Sizes, posts: list[str]) -> Iterator[Figure]:
    of_one = [part for part in _OF_ONE_INSTANCE if part in parts]
    if of_one:
        with _instance(folder, sizes, posts) as (pipeline, other):
            measures: dict[str, Callable[[], list[Figure]]] = {
                "lag": lambda: lag(pipeline, folder, sizes.lag, posts),
                "down": lambda: down(pipeline, sizes.down),
                "page": lambda: page(pipeline),
                "stopped": lambda: stopped_stages(pipeline),
                "series": lambda: series(pipeline, other),
            }
            for part in of_one:
                yield from measures[part]()
    if "alert" in parts:
        yield from _alert(folder / "alert")
    if "cost" in parts:
        (folder / "cost").mkdir()
        texts_file = folder / "texts.json"
        texts_file.write_text(json.dumps(posts))
        yield from cost(folder / "cost", sizes.cost, texts_file, posts)


@contextmanager
def _instance(folder: Path, sizes: Sizes, posts: list[str]) -> Iterator[tuple[Pipeline, Path]]:
    """It serves some posts, and another package lies beside it."""
    package, other = two_packages(folder, SMALL)
    events = folder / "posts.jsonl"
    write_posts(events, posts, range(sizes.posts))
    # The supervisor would end the stages that are stopped here.
    with serving(folder, package, events, sizes.posts, stalled_after_s=3600) as pipeline:
        yield pipeline, other


def _alert(folder: Path) -> list[Figure]:
    """A stage that stops, one of the faults that `benchmarks.kit.symptoms` produces. Where the alert does not come, the
    benchmark fails."""
    folder.mkdir()
    try:
        return produce(folder, ["encode stopped"])
    except CannotProduce as error:
        print(f"alert: not measured: {error}", flush=True)
        return []


if __name__ == "__main__":
    raise SystemExit(main())
