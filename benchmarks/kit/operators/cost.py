"""What watching costs: posts/s of the pipeline with all that watches it, divided by posts/s without."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import fmean
from threading import Event, Thread
from typing import Final, NamedTuple

from benchmarks.kit.operators.asking import scrape
from benchmarks.kit.packages import layout, random_package
from benchmarks.kit.pipeline_load import encoder_alone, pipeline_load
from benchmarks.kit.reindex.instance import Model
from benchmarks.kit.table import Figure
from nearline.pipeline import Pipeline
from retriever.errors import RetrieverError
from schemas.api import RetrieveRequest

_OVERLOAD: Final = 1.2
_SCRAPE_EVERY_S: Final = 5.0
_ASK_EVERY_S: Final = 0.5
_BOUND: Final = 0.97


class CostSizes(NamedTuple):
    """Both arms are measured `rounds` times, alternately, because machines drift."""

    model: Model
    seconds: float
    alone_s: float
    rounds: int
    count_every_s: float


def _questions(pipeline: Pipeline, stop: Event) -> None:
    """Of which online recall takes its samples. Both arms have them."""
    with closing(pipeline.client()) as client:
        number = 0
        while not stop.wait(_ASK_EVERY_S):
            number += 1
            try:
                client.retrieve(RetrieveRequest(text=f"question {number}", k=100))
            except RetrieverError:
                continue


def _watched(pipeline: Pipeline, stop: Event) -> None:
    scraping = Thread(target=scrape, args=(pipeline, _SCRAPE_EVERY_S, stop), daemon=True)
    scraping.start()
    _questions(pipeline, stop)
    scraping.join()


class _Arm(NamedTuple):
    name: str
    settings: dict[str, str]
    beside: Callable[[Pipeline, Event], None]


_ARMS: Final = (
    _Arm("without", {"NEARLINE_MONITOR__CANARY_S": "0", "NEARLINE_SERVE__RECALL_BUDGET": "0"}, _questions),
    _Arm("with", {"NEARLINE_MONITOR__CANARY_S": "10", "NEARLINE_SERVE__RECALL_BUDGET": "0.01"}, _watched),
)


def cost(folder: Path, sizes: CostSizes, texts_file: Path, posts: list[str]) -> list[Figure]:
    package = random_package(folder / "package", layout(*sizes.model))
    rate = _OVERLOAD * encoder_alone(package, texts_file, sizes.alone_s)
    rates: dict[str, list[float]] = {arm.name: [] for arm in _ARMS}
    for number in range(sizes.rounds):
        for name, settings, beside in _ARMS:
            own = folder / f"{name}-{number}"
            own.mkdir()
            load = pipeline_load(
                own,
                package,
                posts,
                rate,
                sizes.seconds,
                settings=settings,
                beside=beside,
                count_every_s=sizes.count_every_s,
            )
            rates[name].append(load.rate())
    without, watched = (fmean(rates[arm.name]) for arm in _ARMS)
    return [
        Figure("pipeline without canaries, recall and scrapes, posts/s", without),
        Figure("pipeline with canaries, recall, and all metrics scraped, posts/s", watched),
        Figure("pipeline with / without", watched / without, _BOUND),
    ]
