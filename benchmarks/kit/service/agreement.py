"""Whether answers made of kept cold answers are those that fresh ones would be, while posts and members change, the
index lags behind by a changing time, and posts leave the full hot tier. Much smaller tiers than elsewhere, so that an
answer is kept for some seconds only before the hot tier has lost a change since it was made.

Two retrievers share the tiers; one of them keeps nothing. For a comparison nothing is written from before the first
answer until after the second. Other threads ask the first retriever all the time, so that its kept answers are made
while writes go on.
"""

import itertools
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from benchmarks.kit.live_records import PARTITIONS, LiveRecords, place
from benchmarks.kit.questions import Questions
from benchmarks.kit.table import Figure
from benchmarks.kit.tiers import filled_hot_tier, filled_member_store, new_retriever
from benchmarks.kit.vectors import draw, member, posts
from indexer.cold.edge.tier import EdgeColdTier
from indexer.id_table import IdTable
from indexer.settings import ColdSettings
from indexer.tiers import Filters, HotRecord, HotTier, IndexRecord
from retriever.answer.question import Answer, Question
from retriever.answer.retriever import Retriever
from retriever.feed.member_store import MemberStore
from schemas.ids import Generation, MemberId, Micros, Offset, Partition, Revision
from schemas.times import now_us

_POSTS: Final = 20_000
_HOT: Final = 4_000
_MEMBERS: Final = 200
_DIMENSION: Final = 32
_WRITES: Final = 8
"""At once, after each pause."""
_PAUSE_S: Final = 0.01
_MAX_LAG: Final = 60
"""So many times the index may let pass before it writes all that has come in."""
_ASKERS: Final = 2
_KS: Final = (20, 200, 1000)
_TOLERANCE: Final = 1e-5
"""Scores of one post may differ by so much, because a batch of queries is added up in another order than one alone."""


class World:
    """Both tiers, the members, and what comes in for them."""

    def __init__(self, cold: EdgeColdTier, hot: HotTier, members: MemberStore, live: LiveRecords) -> None:
        self.gate = threading.Lock()
        """Held while something is written, and during a comparison."""
        self._cold = cold
        self._hot = hot
        self._members = members
        self._live = live
        self._random = random.Random(0)
        self._num_posts = 0
        self._num_members = itertools.count(_MEMBERS)
        self._unindexed: list[IndexRecord] = []
        self._indexed_in = 0

    def write(self) -> None:
        """Some writes come in. Now and then the index catches up."""
        with self.gate:
            end = self._num_posts + _WRITES
            records = list(self._live.posts(self._num_posts, end))
            self._hot.apply([HotRecord(*record, Micros(now_us())) for record in records])
            self._unindexed += [IndexRecord(*record) for record in records]
            self._num_posts = end
            self._indexed_in -= 1
            if self._indexed_in < 0:
                self._index()

    def change(self, number: int, revision: Revision) -> None:
        """A member's new vector comes in."""
        with self.gate:
            record = IndexRecord(self._live.member(number, revision), *place(next(self._num_members)))
            self._members.apply([record])
            self._cold.write("member", [record])

    def _index(self) -> None:
        self._cold.write("post", self._unindexed)
        end = Offset(_POSTS + self._num_posts)
        self._cold.reached({Partition(partition): end for partition in range(PARTITIONS)})
        self._unindexed = []
        self._indexed_in = self._random.randrange(_MAX_LAG)


class Compared(NamedTuple):
    num_compared: int
    num_different: int
    num_partial: int
    share_found: float
    """Of the questions whose cold answer was kept."""


def agreement(folder: Path, count: int) -> list[Figure]:
    with _world(folder) as (world, keeping, fresh):
        compared = _compare(world, keeping, fresh, count)
    return [
        Figure("kept and fresh answers compared under writes", compared.num_compared, count),
        Figure("of these different", compared.num_different, 0, "at_most"),
        Figure("of these partial", compared.num_partial, 0, "at_most"),
        Figure("share of questions whose cold answer was kept", compared.share_found, 0.5),
    ]


@contextmanager
def _world(folder: Path) -> Iterator[tuple[World, Retriever, Retriever]]:
    newest = Micros(now_us())
    vectors = draw(_POSTS, _DIMENSION)
    with ExitStack() as stack:
        cold = stack.enter_context(closing(EdgeColdTier(folder, Generation("benchmark"), _DIMENSION, ColdSettings())))
        embeddings = posts(vectors, newest_us=newest, spacing_us=1000)
        cold.write("post", [IndexRecord(each, *place(number)) for number, each in enumerate(embeddings)])
        of_members = [member(number, vector) for number, vector in enumerate(draw(_MEMBERS, _DIMENSION, seed=1))]
        cold.write("member", [IndexRecord(each, *place(number)) for number, each in enumerate(of_members)])
        cold.reached({Partition(partition): Offset(_POSTS) for partition in range(PARTITIONS)})
        ids = IdTable()
        hot = filled_hot_tier(vectors[-_HOT:], _POSTS - _HOT, newest, ids)
        members = filled_member_store(_MEMBERS, _DIMENSION)
        # The one that keeps its answers comes last, because only one can make answers ahead for members.
        fresh = stack.enter_context(closing(new_retriever(_DIMENSION, cold, hot, ids, members, kept_bytes=0)))
        keeping = stack.enter_context(closing(new_retriever(_DIMENSION, cold, hot, ids, members)))
        yield World(cold, hot, members, LiveRecords(_POSTS, _DIMENSION, newest)), keeping, fresh


def _compare(world: World, keeping: Retriever, fresh: Retriever, count: int) -> Compared:
    num_different = num_partial = 0
    with _in_background(world, keeping):
        for question in itertools.islice(_questions(world, seed=0), count):
            with world.gate:
                kept, expected = keeping.answer(question), fresh.answer(question)
            num_partial += kept.partial or expected.partial
            num_different += differs(kept, expected)
    found, missed = keeping.kept.found, keeping.kept.missed
    return Compared(count, num_different, num_partial, found / max(1, found + missed))


def differs(answer: Answer, expected: Answer) -> bool:
    """Posts whose scores are equal within the tolerance may change places, also with one behind the last."""
    if len(answer.post_ids) != len(expected.post_ids):
        return True
    if not len(answer.post_ids):
        return False
    if np.abs(answer.scores_C - expected.scores_C).max() > _TOLERANCE:
        return True
    scores = dict(zip(answer.post_ids, answer.scores_C.tolist(), strict=True))
    last = float(expected.scores_C[-1])
    for post_id, score in zip(expected.post_ids, expected.scores_C.tolist(), strict=True):
        own = scores.get(post_id, last)
        if abs(own - score) > _TOLERANCE:
            return True
    return False


@contextmanager
def _in_background(world: World, keeping: Retriever) -> Iterator[None]:
    """Writes, and questions beside those that are compared."""
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(_PAUSE_S):
            world.write()

    def ask(seed: int) -> None:
        for question in _questions(world, seed):
            if stop.is_set():
                return
            keeping.answer(question)
            time.sleep(_PAUSE_S)

    threads = [threading.Thread(target=write), *(threading.Thread(target=ask, args=(1 + n,)) for n in range(_ASKERS))]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _questions(world: World, seed: int) -> Iterator[Question]:
    """By Zipf's law. Some of them name filters, so that a member has several kept answers."""
    change = world.change if seed == 0 else _ignore
    chance = random.Random(seed)
    for number in Questions(_MEMBERS, change, seed):
        yield Question(
            member_id=MemberId(f"author-{number}"),
            k=chance.choice(_KS),
            filters=Filters(languages=frozenset({"en", "de"})) if chance.random() < 0.2 else Filters(),
            hide_acted=chance.random() < 0.2,
            timeout_s=30.0,
        )


def _ignore(_: int, __: Revision) -> None:
    """Only one sequence of questions changes members, so that their revisions grow."""
