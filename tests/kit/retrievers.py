"""A retriever over plain tiers that can be made to fail, posts with a known score, and members that ask."""

from threading import Event, Thread
from typing import Any, Final, Never, Self

import numpy as np

from encoders.errors import BadText
from indexer.brute_force import BruteColdTier
from indexer.errors import TierUnavailable
from indexer.hot.tier import MatrixHotTier
from indexer.id_table import IdTable
from indexer.settings import HotSettings
from indexer.tiers import Filters, HotRecord, IndexRecord
from retriever.answer.question import TIERS, Answer, Question
from retriever.answer.retriever import Retriever
from retriever.answer.warming_encoder import WarmingEncoder
from retriever.feed.hot_feed import HotFeed
from retriever.feed.member_store import MemberStore
from retriever.feed.trending_lists import TrendingLists
from retriever.reasons import Reason
from retriever.serving import Addresses, serve
from retriever.settings import ServeSettings
from schemas.api import (
    ColdStatus,
    FreshnessStatus,
    HotStatus,
    StatusResponse,
    TiersStatus,
)
from schemas.embeddings import MemberEmbedding, PostEmbedding, Vector
from schemas.ids import Generation, Micros, Offset, Partition, PostId
from schemas.trending import TrendingEntry, TrendingList
from tests.kit.brute_hot_tier import BruteHotTier
from tests.kit.data.embeddings import DIMENSION, GENERATION, NOW, member_embedding, post_embedding
from tests.kit.waiting import until

NOW_S: Final = NOW // 1_000_000
WINDOW_S: Final = 48 * 3600.0
LONG_S: Final = 30.0
"""A deadline that no test reaches."""
PARTITION: Final = Partition(0)
FAR: Final = Offset(1_000_000)
QUERY: Final = np.eye(DIMENSION, dtype=np.float32)[0]


def vector_with(score: float) -> Vector:
    """Of length one, with this dot product with QUERY."""
    vector = np.zeros(DIMENSION, np.float32)
    vector[0], vector[1] = score, np.sqrt(1 - score**2)
    return vector


def scored_post(post_id: str, score: float = 0.5, *, age_s: float = 60.0, **fields: Any) -> PostEmbedding:
    """A post with this score for QUERY, written this long before NOW_S."""
    fields = {"author": "author", **fields}
    return post_embedding(post_id, vector=vector_with(score), created_at_us=int((NOW_S - age_s) * 1e6), **fields)


def asking_member(member_id: str, **fields: Any) -> MemberEmbedding:
    """A member whose vector is QUERY."""
    return member_embedding(member_id, vector=QUERY, **fields)


def tiers_of(answer: Answer) -> list[str]:
    return [TIERS[tier] for tier in answer.tiers_C.tolist()]


def codes_of(answer: Answer) -> list[str]:
    return [str(reason.code) for reason in answer.reasons]


class FallibleTier:
    """A tier that raises TierUnavailable while `fails` is set, or in the one method that it names."""

    def __init__(self, tier: Any) -> None:
        self.tier = tier
        self.fails: bool | str = False
        self.failures = 0

    def __getattr__(self, name: str) -> Any:
        if self.fails in (True, name):
            self.failures += 1
            raise TierUnavailable("the tier is down for this test")
        return getattr(self.tier, name)


class QueryModel:
    """Encodes every text to QUERY. A text of spaces cannot be encoded."""

    forgot_after_s: float | None = None
    """What it was told last."""

    def forget_unused(self, age_s: float) -> None:
        self.forgot_after_s = age_s

    def encode_text(self, text: str) -> Vector:
        if not text.strip():
            raise BadText("there is nothing to encode")
        return QUERY


class RetrieverSetup:
    """A retriever (`under_test`) over plain tiers, whose parts a test may change. The log has one partition. The cold
    tier says that it has written all of it, and the hot tier holds it from offset 1 on, so answers are whole."""

    def __init__(
        self,
        *,
        warm: bool = True,
        real_hot_tier: bool = False,
        generation: Generation = GENERATION,
        ids: IdTable | None = None,
        **settings: Any,
    ) -> None:
        self.ids = IdTable() if ids is None else ids
        self.cold = FallibleTier(BruteColdTier(DIMENSION))
        hot_settings = HotSettings(window_s=WINDOW_S, device="cpu")
        new_hot_tier = MatrixHotTier if real_hot_tier else BruteHotTier
        self.hot = FallibleTier(new_hot_tier(DIMENSION, hot_settings, self.ids))
        self.hot.tier.begin({PARTITION: Offset(1)})
        self.cold.tier.reached({PARTITION: FAR})
        self.trending = TrendingLists()
        self.feed_problem: Reason | None = None
        self.members = MemberStore(
            1000, DIMENSION, indexed=lambda: {PARTITION: FAR}, feed_problem=lambda: self.feed_problem
        )
        self.members.begin({PARTITION: Offset(1)})
        self.broken_status = False
        self.encoder = WarmingEncoder(QueryModel)
        if warm:
            self.warm_up()
        self._next_offset = 1
        self.under_test = Retriever(
            generation,
            DIMENSION,
            self.cold,
            self.hot,
            ids=self.ids,
            members=self.members,
            encoder=self.encoder,
            trending=self.trending,
            feed_problem=lambda: self.feed_problem,
            **settings,
        )
        self.under_test.tidy()

    def close(self) -> None:
        self.under_test.close()

    def warm_up(self) -> None:
        self.encoder.start()
        until(lambda: self.encoder.problem is None, "the model to be warm")

    def in_cold(self, *embeddings: PostEmbedding | MemberEmbedding, again: bool = False) -> None:
        """`again`: as when the same records are written again, to mend what was there."""
        for embedding in embeddings:
            kind = "post" if isinstance(embedding, PostEmbedding) else "member"
            self.cold.tier.write(kind, [IndexRecord(embedding, PARTITION, Offset(0))], again=again)
        self.cold.tier.flush()

    def in_hot(self, *embeddings: PostEmbedding) -> None:
        self.hot.tier.apply([HotRecord(post, PARTITION, self._offset(), NOW) for post in embeddings])

    def in_both(self, *embeddings: PostEmbedding) -> None:
        self.in_cold(*embeddings)
        self.in_hot(*embeddings)

    def in_member_feed(self, *embeddings: MemberEmbedding) -> None:
        self.members.apply([IndexRecord(member, PARTITION, self._offset()) for member in embeddings])

    def _offset(self) -> Offset:
        self._next_offset += 1
        return Offset(self._next_offset - 1)

    def status(self) -> StatusResponse:
        if self.broken_status:
            raise ZeroDivisionError
        return StatusResponse(
            ready=True,
            generation=GENERATION,
            processes=[],
            stages=[],
            tiers=TiersStatus(cold=ColdStatus(posts=None, members=None), hot=HotStatus(posts=None)),
            dead_letters=None,
            freshness_s=FreshnessStatus(p50=None, p99=None),
        )

    def trends(self, **scores: float) -> None:
        entries = [TrendingEntry(PostId(post_id), score) for post_id, score in scores.items()]
        self.trending.put(TrendingList(0, Micros(NOW_S * 1_000_000), 3600.0, entries))

    def ask(self, **request: Any) -> Answer:
        """The fields of a question and those of its filters; lists instead of sets will do."""
        filters = {name: request.pop(name) for name in Filters._fields if name in request}
        filters = {name: frozenset(value) if isinstance(value, list) else value for name, value in filters.items()}
        return self.under_test.answer(Question(filters=Filters(**filters), **{"timeout_s": LONG_S, **request}))


class Served:
    """A retriever on real sockets, over HTTP and gRPC, in a thread. Closes the retriever at the end."""

    def __init__(
        self, retriever: RetrieverSetup, port: int = 0, *, own_port: int | None = None, **settings: Any
    ) -> None:
        """`own_port`: of a worker that shares its other ports; 0 takes a free one."""
        # The default, the port after `port`, may be taken by another test.
        self.settings = ServeSettings(**{"port": port, "grpc_port": 0, **settings})
        self.retriever = retriever
        self.url = ""
        self.grpc = ""
        """Host and port."""
        self.own_url = ""
        """Where it alone answers over HTTP."""
        self._own_port = own_port
        generation = retriever.under_test.generation
        self.feed = HotFeed(_no_consumer, generation, retriever.hot, retriever.trending, window_s=WINDOW_S)
        self._stop = Event()
        self._thread = Thread(target=self.serve)

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self.own_url != "", "the service to listen")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.retriever.close()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def serve(self) -> None:
        """In this thread, until it is stopped."""
        serve(
            self.retriever.under_test,
            self.feed,
            self.retriever.status,
            self.settings,
            on_listening=self._listens,
            stop=self._stop,
            own_port=self._own_port,
            on_own_url=self._is_asked_at,
        )

    def _listens(self, addresses: Addresses) -> None:
        self.url, self.grpc = addresses

    def _is_asked_at(self, url: str) -> None:
        self.own_url = url


def _no_consumer() -> Never:
    raise AssertionError("the feed is not started in this test")
