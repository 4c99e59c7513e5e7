"""What watching costs: posts/s of the pipeline with all that watches it, divided by posts/s without.

Without it the monitor is stopped by a signal: nobody asks for lag, for the figures of the page, or for canaries.
Nothing is scraped, and no recall is measured. What the processes count of their own work is counted in both, because no
setting turns that off.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from statistics import fmean
from threading import Event
from typing import Final, NamedTuple

from benchmarks.kit.operators.asking import Scraped, grown, scrape
from benchmarks.kit.packages import layout, random_package
from benchmarks.kit.pipeline_load import encoder_alone, pipeline_load
from benchmarks.kit.reindex.instance import Model
from benchmarks.kit.stopping import stopped
from benchmarks.kit.table import Figure
from nearline.pipeline import Pipeline
from nearline.up.names import MONITOR
from retriever.errors import RetrieverError
from schemas.api import RetrieveRequest

_OVERLOAD: Final = 1.2
_SCRAPE_EVERY_S: Final = 5.0
_ASK_EVERY_S: Final = 0.5
_BOUND: Final = 0.97
_OF_BOTH: Final = {"NEARLINE_STALLED_AFTER_S": "3600"}
"""Earlier the supervisor would kill the stopped monitor, and start it again."""
_OFF: Final = {"NEARLINE_MONITOR__CANARY_S": "0", "NEARLINE_SERVE__RECALL_BUDGET": "0"}


class CostSizes(NamedTuple):
    """Both arms are measured `rounds` times, alternately, because machines drift."""

    model: Model
    seconds: float
    alone_s: float
    rounds: int
    count_every_s: float
    canary_s: float


class Watched(NamedTuple):
    """What was seen of the pipeline while its posts were counted. What sees nothing costs nothing."""

    scrapes: int
    """That a process has answered: of the one that has answered the fewest."""
    canaries: int
    recalls: int
    """Answers that were given once more, exactly."""


def cost(folder: Path, sizes: CostSizes, texts_file: Path, posts: list[str]) -> list[Figure]:
    package = random_package(folder / "package", layout(*sizes.model))
    rate = _OVERLOAD * encoder_alone(package, texts_file, sizes.alone_s)

    def posts_per_s(name: str, settings: Mapping[str, str], beside: Callable[[Pipeline, Event], None]) -> float:
        own = folder / name
        own.mkdir()
        load = pipeline_load(
            own,
            package,
            posts,
            rate,
            sizes.seconds,
            settings={**_OF_BOTH, **settings},
            beside=beside,
            count_every_s=sizes.count_every_s,
        )
        return load.rate()

    on = {"NEARLINE_MONITOR__CANARY_S": str(sizes.canary_s), "NEARLINE_SERVE__RECALL_BUDGET": "0.01"}
    seen: list[Watched] = []
    without: list[float] = []
    watched: list[float] = []
    for number in range(sizes.rounds):
        without.append(posts_per_s(f"without-{number}", _OFF, _unwatched))
        watched.append(posts_per_s(f"with-{number}", on, lambda pipeline, stop: seen.append(_watched(pipeline, stop))))
    return cost_figures(fmean(without), fmean(watched), seen)


def cost_figures(without: float, watched: float, seen: Sequence[Watched]) -> list[Figure]:
    """`without`, `watched`: posts/s. `seen`: in each round that was watched."""
    return [
        Figure("pipeline without monitor, scrapes and recall, posts/s", without),
        Figure("pipeline with them, and canaries, posts/s", watched),
        Figure("pipeline with / without", watched / without, _BOUND),
        Figure("with: scrapes that a process has answered, fewest", min(each.scrapes for each in seen), 1),
        Figure("with: canaries in a round that were seen to their end, fewest", min(each.canaries for each in seen), 1),
        Figure("with: answers in a round whose recall was measured, fewest", min(each.recalls for each in seen), 1),
    ]


def _unwatched(pipeline: Pipeline, stop: Event) -> None:
    with stopped(pipeline, MONITOR):
        _ask_questions(pipeline, stop)


def _watched(pipeline: Pipeline, stop: Event) -> Watched:
    with ThreadPoolExecutor(1) as pool:
        scraping = pool.submit(scrape, pipeline, _SCRAPE_EVERY_S, stop)
        _ask_questions(pipeline, stop)
        return what_was_seen(scraping.result())


def what_was_seen(scraped: Scraped) -> Watched:
    return Watched(
        min(map(len, scraped.values()), default=0),
        round(grown(scraped, "nearline_canaries_total")),
        round(grown(scraped, "nearline_recall_answers_total")),
    )


def _ask_questions(pipeline: Pipeline, stop: Event) -> None:
    """Of which online recall takes its samples. Both arms have them."""
    with closing(pipeline.client()) as client:
        number = 0
        while not stop.wait(_ASK_EVERY_S):
            number += 1
            try:
                client.retrieve(RetrieveRequest(text=f"question {number}", k=100))
            except RetrieverError:
                continue
