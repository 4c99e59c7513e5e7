"""Where the operators' page has the figures from that the monitor does not see itself: the tiers, the metrics of the
processes, and how far the building of a generation is."""

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

from nearline.ask.connections import own_connections
from nearline.ask.hot_reports import HotReport, ask_all
from nearline.ask.status import TiersSeen, read_tiers
from nearline.page.collector import Progresses, Sources
from nearline.page.counters import WANTED, Scraped
from nearline.settings.settings import Settings
from nearline.up.names import MONITOR
from nearline.up.scraping import Scraper
from schemas.ids import Generation
from streams.generations.progress import read_progress
from streams.generations.state import Generations
from streams.kafka.offsets import OffsetReader

_RETRIEVER_S: Final = 2.0
_COLD_S: Final = 3.0
"""The cold process may answer only after a flush."""
_BUDGET_S: Final = 3.5
_KAFKA_S: Final = 2.0


def page_sources(settings: Settings, state: Callable[[], Generations | None]) -> Sources:
    """`state` is the newest state of the log of generations; None if it was not read yet."""
    scraper = Scraper(settings.data_dir, settings.serve)

    def serving() -> Generation | None:
        now = state()
        return None if now is None or now.serving is None else now.serving.id

    def tiers() -> TiersSeen:
        connections, generation = own_connections(settings), serving()

        def hot() -> HotReport:
            return ask_all(connections.retrievers(_RETRIEVER_S), generation)

        return read_tiers(hot, lambda: closing(connections.cold(_COLD_S, generation)), _BUDGET_S)

    def scraped() -> Scraped:
        names = [name for name in scraper.names() if name != MONITOR]
        return [(name, metrics) for name in names if (metrics := scraper.metrics_of(name, WANTED))]

    def progresses() -> Progresses:
        now = state()
        building = [] if now is None else [record for record in now.live if record.state == "building"]
        if not building:
            return {}
        with closing(OffsetReader(settings.kafka, _KAFKA_S)) as reader:
            return {record.id: read_progress(reader, record, datetime.now(UTC)) for record in building}

    return Sources(tiers, scraped, progresses)
