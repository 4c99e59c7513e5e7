"""Any order of records, expiry and gaps: the hot tier is as brute force, and its floor never promises too much."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.hot.tier import MatrixHotTier
from indexer.id_table import IdTable
from indexer.settings import HotSettings
from indexer.tiers import NO_FILTERS, HotQuery, HotRecord, HotTier, Offsets
from schemas.embeddings import PostEmbedding
from schemas.ids import Micros, Offset, Partition, PostId
from tests.kit.brute_hot_tier import BruteHotTier
from tests.kit.data.embeddings import DIMENSION, HOUR_US, NOW, post_embedding, vectors

NUM_PARTITIONS = 3
NAMES = [PostId(f"p{number}") for number in range(9)]
QUERY = vectors(1)[0]


class Written(NamedTuple):
    """The next record of a partition."""

    name: PostId
    revision: int
    """Every third is a delete. Records of one revision differ in their vectors."""
    hours: int
    """Its time. Times do not grow with the offsets."""


class Read(NamedTuple):
    """Records are written, and read together."""

    written: list[Written]


class ReadAgain(NamedTuple):
    """The feed goes back by so many records of a partition, as after an interruption."""

    partition: int
    count: int


class Expired(NamedTuple):
    hours: int


class Gap(NamedTuple):
    """So many records of a partition are deleted before the feed has read them."""

    partition: int
    count: int


class Restarted(NamedTuple):
    """The feed begins anew, so many records before the end of a partition."""

    partition: int
    count: int


PARTITIONS = st.integers(0, NUM_PARTITIONS - 1)
WRITTEN = st.builds(Written, st.sampled_from(NAMES), st.integers(1, 6), st.integers(-3, 6))
STEPS = st.lists(
    st.one_of(
        st.builds(Read, st.lists(WRITTEN, min_size=1, max_size=8)),
        st.builds(ReadAgain, PARTITIONS, st.integers(1, 5)),
        st.builds(Expired, st.integers(0, 9)),
        st.builds(Gap, PARTITIONS, st.integers(0, 3)),
        st.builds(Restarted, PARTITIONS, st.integers(0, 6)),
    ),
    max_size=40,
)


class Log:
    """All records that were ever written, and what the feed makes of them. The posts of a name are in one partition."""

    def __init__(self, *tiers: HotTier) -> None:
        self.tiers = tiers
        self.records: list[list[HotRecord]] = [[] for _ in range(NUM_PARTITIONS)]

    def take(self, step: NamedTuple) -> None:
        match step:
            case Read(written):
                self._apply([self._write(record) for record in written])
            case ReadAgain(partition, count):
                self._apply(self.records[partition][-count:])
            case Expired(hours):
                now = Micros(NOW + hours * HOUR_US)
                same(tier.expire(now) for tier in self.tiers)
            case Gap(partition, count):
                for number in range(count):
                    self._write(Written(NAMES[partition], 7 + number, 0))
                self._begin(partition, len(self.records[partition]))
            case Restarted(partition, count):
                start = max(0, len(self.records[partition]) - count)
                self._begin(partition, start)
                self._apply(self.records[partition][start:])

    def _write(self, written: Written) -> HotRecord:
        partition = NAMES.index(written.name) % NUM_PARTITIONS
        records = self.records[partition]
        at_us = Micros(NOW + written.hours * HOUR_US)
        is_deleted = written.revision % 3 == 0
        vector = vectors(1, seed=1000 * partition + len(records))[0]
        post = post_embedding(written.name, written.revision, vector=vector, deleted=is_deleted)
        records.append(HotRecord(post, Partition(partition), Offset(len(records)), at_us))
        return records[-1]

    def _begin(self, partition: int, offset: int) -> None:
        for tier in self.tiers:
            tier.begin({Partition(partition): Offset(offset)})

    def _apply(self, records: list[HotRecord]) -> None:
        same(tier.apply(records) for tier in self.tiers)

    def promised(self, floor: Offsets) -> dict[PostId, PostEmbedding]:
        """By id the newest posts that a tier with this floor has to hold: those of the highest revision among all
        records, if one of these records is at or after the floor. Of posts that only have older revisions from there
        on nothing is promised."""
        promised: dict[PostId, PostEmbedding] = {}
        for records in self.records:
            newest: dict[PostId, HotRecord] = {}
            for record in records:
                post_id = record.embedding.post_id
                if post_id not in newest or record.embedding.revision >= newest[post_id].embedding.revision:
                    newest[post_id] = record
            for post_id, record in newest.items():
                if record.offset >= floor.get(record.partition, len(records)):
                    promised[post_id] = record.embedding
        return promised


def same(results: Iterable[int]) -> None:
    assert len(set(results)) == 1


def tiers(capacity: int) -> tuple[MatrixHotTier, BruteHotTier]:
    given_settings = HotSettings(capacity=capacity, window_s=3 * 3600, device="cpu")
    return MatrixHotTier(DIMENSION, given_settings, IdTable()), BruteHotTier(DIMENSION, given_settings, IdTable())


@settings(max_examples=300)
@given(steps=STEPS, capacity=st.integers(1, 6))
def test_any_order_of_steps_ends_as_in_brute_force(steps: list[NamedTuple], capacity: int) -> None:
    tier, plain = tiers(capacity)
    log = Log(tier, plain)
    for step in steps:
        log.take(step)
        assert tier.floor() == plain.floor()
    assert tier.posts(NAMES) == plain.posts(NAMES)
    assert _vectors(tier) == _vectors(plain)
    assert (tier.count(), tier.num_tombstones()) == (plain.count(), plain.num_tombstones())
    assert sorted(tier.scroll_posts()) == sorted(plain.scroll_posts())
    assert _hits(tier, tier._ids) == _hits(plain, plain._ids)


@settings(max_examples=300)
@given(steps=STEPS, capacity=st.integers(1, 6))
def test_the_floor_never_promises_a_record_that_is_not_held(steps: list[NamedTuple], capacity: int) -> None:
    tier, _ = tiers(capacity)
    log = Log(tier)
    for step in steps:
        log.take(step)
        promised = log.promised(tier.floor())
        for post, held in zip(promised.values(), tier.posts(list(promised), with_vectors=True), strict=True):
            assert held is not None, f"{post.post_id} is missing"
            assert (held.revision, held.deleted) == (post.revision, post.deleted)
            assert held.vector is None or held.vector.tobytes() == post.vector


def _vectors(tier: HotTier) -> list[bytes | None]:
    posts = tier.posts(NAMES, with_vectors=True)
    return [None if post is None or post.vector is None else post.vector.tobytes() for post in posts]


def _hits(tier: HotTier, ids: IdTable) -> tuple[list[PostId], list[int]]:
    (answer,) = tier.search([HotQuery(QUERY, 20, NO_FILTERS, np.empty(0, np.int32))])
    return ids.ids(answer.numbers), answer.revisions.tolist()
