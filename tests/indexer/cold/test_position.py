"""The position of a cold answer promises that every record before it is in the answer. Whatever the order in which the
owner's and the reader's steps come."""

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from random import Random
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.cold.edge import tier as edge_tier
from indexer.cold.edge.tier import EdgeColdTier
from indexer.cold.qdrant.tier import QdrantColdTier
from indexer.tiers import ColdHits, IndexRecord, Offsets
from schemas.embeddings import PostEmbedding
from schemas.ids import Generation, Offset, Partition
from tests.kit.data.embeddings import DIMENSION, post_embedding, vectors
from tests.kit.qdrant_server import QdrantServer
from tests.kit.tiers import SetClock, open_edge_tier

QUERY: Final = vectors(1)[0]
NUM_PARTITIONS: Final = 2
WRITES = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=5),
    min_size=1,
    max_size=4,
)
"""Batches of (number of the post, revision). Every third revision is a delete."""


class Actor:
    """A thread that takes a step only when it is told to. In between it is parked in `pause`."""

    current = threading.local()

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self._go, self._parked = threading.Semaphore(0), threading.Semaphore(0)
        self._error: Exception | None = None
        self.finished = False
        self._thread = threading.Thread(target=self._act, daemon=True)
        self._thread.start()

    def step(self) -> None:
        """Lets the thread run up to its next `pause`, or to its end."""
        if self.finished:
            return
        self._go.release()
        assert self._parked.acquire(timeout=30), "the actor hangs"
        if self._error is not None:
            raise self._error

    def pause(self) -> None:
        self._parked.release()
        self._go.acquire()

    def _act(self) -> None:
        Actor.current.actor = self
        self._go.acquire()
        try:
            self._run()
        except Exception as error:
            self._error = error
        self.finished = True
        self._parked.release()


def pause() -> None:
    Actor.current.actor.pause()


class SteppedLock:
    """A lock at which every actor pauses before it takes it."""

    def __init__(self) -> None:
        self._taken = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        pause()
        while self._taken:
            pause()
        self._taken = True
        return True

    def release(self) -> None:
        self._taken = False
        pause()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Log(NamedTuple):
    batches: list[list[IndexRecord]]

    @classmethod
    def of(cls, batches: Sequence[Sequence[tuple[int, int]]]) -> "Log":
        ends = [0] * NUM_PARTITIONS
        log: list[list[IndexRecord]] = []
        for batch in batches:
            log.append([])
            for number, revision in batch:
                partition = number % NUM_PARTITIONS
                embedding = post_embedding(f"p{number}", revision, deleted=revision % 3 == 0)
                log[-1].append(IndexRecord(embedding, Partition(partition), Offset(ends[partition])))
                ends[partition] += 1
        return cls(log)

    def check(self, hits: ColdHits) -> None:
        """The hits take every record before their position into account, or a newer one of the same post."""
        found = dict(zip(hits.post_ids, hits.revisions.tolist(), strict=True))
        newest: dict[str, PostEmbedding] = {}
        for record in (record for batch in self.batches for record in batch):
            embedding = record.embedding
            assert isinstance(embedding, PostEmbedding)
            if record.offset >= hits.position.get(record.partition, 0):
                continue
            if embedding.post_id not in newest or embedding.revision > newest[embedding.post_id].revision:
                newest[embedding.post_id] = embedding
        for post_id, embedding in newest.items():
            if post_id in found:
                oldest_right = embedding.revision + embedding.deleted
                assert found[post_id] >= oldest_right, f"{post_id} is older than {hits.position} promises"
            elif not embedding.deleted:
                newer_deletes = [r for r in self._records_of(post_id) if r.deleted and r.revision > embedding.revision]
                assert newer_deletes, f"{post_id} is missing, and {hits.position} promises it"

    def _records_of(self, post_id: str) -> Iterator[PostEmbedding]:
        for batch in self.batches:
            for record in batch:
                if isinstance(record.embedding, PostEmbedding) and record.embedding.post_id == post_id:
                    yield record.embedding


@pytest.fixture
def small_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write of a batch is cut into steps, between which others come in."""
    monkeypatch.setattr(edge_tier, "_WRITE_POINTS", 2)


@pytest.mark.usefixtures("small_writes")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(batches=WRITES, seed=st.integers(0, 2**32))
def test_a_search_finds_what_its_position_promises(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[tuple[int, int]]],
    seed: int,
) -> None:
    """The order is drawn with a seed of its own: the lists of hypothesis are short, and a batch takes many steps."""
    order = Random(seed)
    log = Log.of(batches)
    with closing(open_edge_tier(tmp_path_factory.mktemp("cold"), dimension=DIMENSION)) as tier:
        lock, tier._lock = tier._lock, SteppedLock()  # type: ignore[assignment]
        live_mask = tier._posts.table.live_mask
        tier._posts.table.live_mask = lambda: (pause(), live_mask())[1]  # type: ignore[method-assign, func-returns-value]
        owner = Actor(lambda: _write(tier, log))
        reader = Actor(lambda: _read(tier, log, 4))
        while not (owner.finished and reader.finished):
            for _ in range(order.randrange(20)):
                owner.step()
            for _ in range(order.randrange(3)):
                reader.step()
        tier._lock = lock
        tier._posts.table.live_mask = live_mask  # type: ignore[method-assign]
        hits = tier.search(QUERY, 10)
        log.check(hits)
        assert sum(hits.position.values()) == sum(map(len, batches)), "all of it, and nothing more"


def _write(tier: EdgeColdTier, log: Log) -> None:
    """As the index loop does: the position moves when a batch is durable."""
    for batch in log.batches:
        tier.write("post", batch)
        pause()
        tier.flush()
        pause()
        tier.reached({record.partition: Offset(record.offset + 1) for record in batch})
        pause()


def _read(tier: EdgeColdTier, log: Log, times: int) -> None:
    for _ in range(times):
        log.check(tier.search(QUERY, 10))
        pause()


def test_the_position_is_asked_before_the_server_is() -> None:
    """What the index group commits while the server looks for hits may not be in them."""
    committed: Offsets = {Partition(0): Offset(5)}

    def commits_meanwhile(_: QdrantServer, __: Any) -> None:
        nonlocal committed
        committed = {Partition(0): Offset(9)}

    with (
        QdrantServer() as server,
        closing(
            QdrantColdTier(
                server.settings(),
                Generation(f"test-{uuid.uuid4().hex[:8]}"),
                DIMENSION,
                SetClock(),
                position=lambda: committed,
            )
        ) as tier,
    ):
        tier.count("post")
        server.faults = [("Points/QueryBatch", commits_meanwhile)]
        assert tier.search(QUERY, 5).position == {0: 5}
        assert tier.position() == {0: 9}
