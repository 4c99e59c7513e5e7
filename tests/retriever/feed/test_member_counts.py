"""What the member store says of itself for the metrics."""

from indexer.tiers import Offsets
from retriever.feed.member_store import MemberStore
from retriever.reasons import Code, Reason
from schemas.ids import MemberId, Offset, Partition
from tests.kit.data.embeddings import DIMENSION, index_records, member_embedding

FLOOR: Offsets = {Partition(0): Offset(100)}


def test_it_counts_what_it_holds_finds_and_drops() -> None:
    problems: list[Reason] = []
    store = MemberStore(2, DIMENSION, indexed=dict, feed_problem=lambda: problems[0] if problems else None)
    store.begin(FLOOR)
    assert store.counts() == (0, 0, 0, 0, 0)
    store.apply(index_records(member_embedding("a"), first=100))
    without_lists = store.counts().num_bytes
    store.apply(index_records(member_embedding("b", hidden=["p" * 100]), first=101))
    counts = store.counts()
    assert (counts.held, counts.evicted) == (2, 0)
    assert 100 < counts.num_bytes - 2 * without_lists < 110
    for name in ("a", "b", "c"):
        store.find(MemberId(name))
    store.apply(index_records(member_embedding("c"), first=102))
    counts = store.counts()
    assert (counts.held, counts.found, counts.missed, counts.evicted) == (2, 2, 1, 1)
    problems.append(Reason(Code.HOT_BEHIND, "the feed is behind"))
    store.find(MemberId("c"))
    assert store.counts().missed == 2, "the cold tier may hold a newer one"
    store.begin(FLOOR)
    assert store.counts()[:2] == (0, 0)
