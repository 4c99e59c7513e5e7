"""Opens one generation for the retriever: its package, its query encoder, both tiers, and the feeds that fill it.

Knows neither which generations are open beside it nor which of them is asked.
"""

import shutil
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Final

from encoders.package.manifest import MemberVectorsForm
from encoders.package.model_package import ModelPackage
from indexer.cold.guarded_reader import GuardedColdReader
from indexer.hot.tier import MatrixHotTier
from indexer.id_table import IdTable
from indexer.tiers import ColdReader, Offsets
from nearline.generations.local_files import hot_folder
from nearline.generations.packages import checked_files, package_here
from nearline.settings.settings import Settings
from nearline.up.cold_socket import cold_socket
from nearline.up.feeds import Feeds, new_feeds
from retriever.answer.online_recall import OnlineRecall
from retriever.answer.retriever import Retriever
from retriever.answer.warming_encoder import WarmingEncoder
from retriever.feed.trending_lists import TrendingLists
from schemas.generations import GenerationRecord
from schemas.ids import Generation
from streams.kafka.periodic import repeating

if TYPE_CHECKING:
    from encoders.encoder import Encoder

_TIDY_EVERY_S: Final = 1.0


class OpenedGeneration:
    """Implements `OpenGeneration`."""

    def __init__(
        self,
        settings: Settings,
        record: GenerationRecord,
        ids: IdTable,
        recall: OnlineRecall,
        *,
        writes_snapshots: bool,
    ) -> None:
        """`ids`, `recall`: of this process; all its generations share them. `writes_snapshots`: False for all processes
        of a retriever but one. Raises what `package_here` raises."""
        package = package_here(record, settings)
        self._snapshots = hot_folder(settings.data_dir, record.id) if writes_snapshots else None
        hot, trending = MatrixHotTier(package.dimension, settings.hot, ids), TrendingLists()
        self.feed = feeds = new_feeds(settings, package, hot, trending, writes_snapshots=writes_snapshots)
        cold = GuardedColdReader(cold_reader(settings, record.id, feeds.index_position.posts))
        exact_cold = cold_reader(settings, record.id, feeds.index_position.posts)
        encoder = WarmingEncoder(lambda: _query_encoder(settings, package))
        self.retriever = _retriever(
            settings,
            package,
            cold,
            hot,
            ids=ids,
            feeds=feeds,
            encoder=encoder,
            trending=trending,
            recall=recall,
            exact_cold=exact_cold,
        )
        with ExitStack() as stack:
            stack.callback(hot.release_ids)
            stack.enter_context(closing(cold))
            stack.enter_context(closing(exact_cold))
            stack.enter_context(closing(self.retriever))
            encoder.start()
            stack.callback(encoder.stop)
            stack.enter_context(feeds.running())
            stack.enter_context(repeating(f"tidying {record.id}", _TIDY_EVERY_S, self.retriever.tidy))
            self._running = stack.pop_all()

    def stop(self) -> None:
        self.feed.stop()

    def close(self) -> None:
        self._running.close()

    def remove_files(self) -> None:
        """Its last snapshot. All else that it has here is removed where its processes are kept running."""
        if self._snapshots is not None:
            shutil.rmtree(self._snapshots, ignore_errors=True)


def _retriever(
    settings: Settings,
    package: ModelPackage,
    cold: GuardedColdReader,
    hot: MatrixHotTier,
    *,
    ids: IdTable,
    feeds: Feeds,
    encoder: WarmingEncoder,
    trending: TrendingLists,
    recall: OnlineRecall,
    exact_cold: ColdReader,
) -> Retriever:
    form = package.manifest.member_vectors
    retriever = Retriever(
        package.generation,
        package.dimension,
        cold,
        hot,
        ids=ids,
        members=feeds.members,
        encoder=encoder,
        trending=trending,
        feed_problem=lambda: feeds.hot.problem,
        cold_refuses=cold.refuses,
        replayed=feeds.index_position.replayed,
        kept_bytes=settings.serve.kept_mb * 1024 * 1024,
        forget_after_s=settings.kafka.erase_within_s / 2,
        recall=recall,
        exact_cold=exact_cold,
        combine_by=form.merge if isinstance(form, MemberVectorsForm) else "quota",
    )
    feeds.hot.watch(retriever.forget_kept)
    return retriever


def _query_encoder(settings: Settings, package: ModelPackage) -> "Encoder":
    from encoders.encoder import Encoder

    # This encoder encodes one text at a time. Torch takes its number of threads from OMP_NUM_THREADS, which `nearline
    # up` has set for this process (`resources.py`).
    encoder = Encoder.load(
        package.folder,
        device=settings.encode.device,
        compiled=settings.encode.compile,
        attention=settings.encode.attention,
        shares_memory=True,  # with the hot tier, with what a search of it takes, and with other generations
        checked=checked_files(settings.data_dir),
    )
    encoder.warm_up()
    return encoder


def cold_reader(
    settings: Settings, generation: Generation, position: Callable[[], Offsets] | None = None
) -> ColdReader:
    """The cold tier for every process except `cold`, which owns it. `position` says how far the index stage is: a
    server does not know that itself."""
    if settings.cold.url is not None:
        from indexer.cold.qdrant.tier import QdrantColdTier

        # Without a dimension it makes no collections, so that no call takes longer than its deadline.
        return QdrantColdTier(settings.cold, generation, position=position)
    from indexer.cold.socket.client import RemoteColdTier

    return RemoteColdTier(cold_socket(settings.data_dir, generation), settings.cold.timeout_s)
