"""The retriever and what it needs, filled with random posts and members, without a broker and without a model."""

from typing import Any, Final

from benchmarks.kit.cold_process import SPACING_US
from benchmarks.kit.live_records import PARTITIONS, place
from benchmarks.kit.vectors import draw, member, posts
from indexer.cold.guarded_reader import GuardedColdReader
from indexer.hot.tier import MatrixHotTier
from indexer.id_table import IdTable
from indexer.settings import HotSettings
from indexer.tiers import ColdReader, HotRecord, HotTier, IndexRecord
from retriever.answer.retriever import Retriever
from retriever.answer.warming_encoder import WarmingEncoder
from retriever.feed.member_store import MemberStore
from retriever.feed.trending_lists import TrendingLists
from schemas.embeddings import Interest, Vector
from schemas.ids import Generation, Micros, Offset, Partition

_BATCH: Final = 1000
KEPT_BYTES: Final = 512 * 1024 * 1024


def filled_hot_tier(vectors: Vector, first: int, newest_us: Micros, ids: IdTable) -> HotTier:
    """Full: it holds the posts numbered from `first`, and each new one pushes out the oldest."""
    window_s = 2 * len(vectors) * SPACING_US / 1e6
    tier = MatrixHotTier(vectors.shape[1], HotSettings(capacity=len(vectors), window_s=window_s, device="cpu"), ids)
    tier.begin({Partition(partition): Offset(first) for partition in range(PARTITIONS)})
    embeddings = posts(vectors, newest_us=newest_us, spacing_us=SPACING_US, first=first)
    records = [HotRecord(each, *place(number), each.created_at_us) for number, each in enumerate(embeddings, first)]
    for start in range(0, len(records), _BATCH):
        tier.apply(records[start : start + _BATCH])
    return tier


def filled_member_store(num_members: int, dimension: int, num_interests: int = 0) -> MemberStore:
    """Holds all members, as after reading their topic from its start. With interests, one weighs as much as all others
    together."""
    store = MemberStore(2 * num_members, dimension, indexed=dict, feed_problem=lambda: None)
    store.begin({Partition(partition): Offset(0) for partition in range(PARTITIONS)})
    vectors = draw(num_members, dimension, seed=1)
    others = draw(num_members * num_interests, dimension, seed=2).reshape(num_members, num_interests, dimension)
    weights = [float(max(num_interests - 1, 1)), *[1.0] * num_interests][:num_interests]
    members = [
        member(number, vector, list(map(Interest, interests, weights)))
        for number, (vector, interests) in enumerate(zip(vectors, others, strict=True))
    ]
    store.apply([IndexRecord(each, *place(number)) for number, each in enumerate(members)])
    return store


def new_retriever(
    dimension: int,
    cold: ColdReader,
    hot: HotTier,
    ids: IdTable,
    members: MemberStore,
    *,
    kept_bytes: int = KEPT_BYTES,
) -> Retriever:
    """As `nearline up` builds it, with the cold tier behind a breaker."""
    guarded = GuardedColdReader(cold)

    def no_model() -> Any:
        raise RuntimeError("members need no model")

    return Retriever(
        Generation("benchmark"),
        dimension,
        guarded,
        hot,
        ids=ids,
        members=members,
        encoder=WarmingEncoder(no_model),
        trending=TrendingLists(),
        feed_problem=lambda: None,
        cold_refuses=guarded.refuses,
        kept_bytes=kept_bytes,
    )
