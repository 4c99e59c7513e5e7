"""The check that a generation is complete both ways, over a real broker and a plain cold tier."""

from collections.abc import Iterable
from threading import Event

import pytest

from indexer.brute_force import BruteColdTier
from nearline.gate.complete import in_cold, in_log, judge, populations
from nearline.gate.versions import Version, summary
from schemas import topics
from schemas.contexts import Context, encode_context
from schemas.embeddings import Embedding, encode_embedding
from schemas.generations import GateFigure
from schemas.ids import Kind
from streams.settings import KafkaSettings
from tests.kit.data.contexts import member_context, post_context
from tests.kit.data.embeddings import DIMENSION, GENERATION, index_records, member_embedding, post_embedding
from tests.kit.kafka.topics import Sender
from tests.kit.running import in_thread
from tests.kit.waiting import until

LONG_S = 60.0
NUM = 40


class World:
    """Posts and members with contexts, and with vectors of the same revisions in the log and in the cold tier."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.kafka = kafka
        self.cold = BruteColdTier(DIMENSION)
        self._sender = Sender(kafka)
        self.contexts(
            *(post_context(post_id=f"p{number}", revision=2) for number in range(NUM)),
            *(member_context(member_id=f"m{number}", revision=3) for number in range(NUM)),
            post_context(post_id="gone", revision=4, deleted=True),
        )
        self.vectors(
            *(post_embedding(f"p{number}", 2) for number in range(NUM)),
            *(member_embedding(f"m{number}", 3) for number in range(NUM)),
            post_embedding("gone", 4, deleted=True),
        )

    def contexts(self, *contexts: Context) -> None:
        for context in contexts:
            is_post = hasattr(context, "post_id")
            topic, entity_id = (
                (topics.POST_CONTEXTS, context.post_id) if is_post else (topics.MEMBER_CONTEXTS, context.member_id)
            )
            self._sender.send(topic, [(entity_id, encode_context(context))])

    def vectors(self, *embeddings: Embedding) -> None:
        self.in_log(*embeddings)
        self.in_cold(*embeddings)

    def in_log(self, *embeddings: Embedding) -> None:
        for embedding in embeddings:
            topic = topics.embeddings(_kind(embedding), GENERATION)
            self._sender.send(topic, [(embedding.entity_id, encode_embedding(embedding))])

    def in_cold(self, *embeddings: Embedding) -> None:
        for embedding in embeddings:
            self.cold.write(_kind(embedding), index_records(embedding))

    def check(self, settle_s: float = 0.0) -> tuple[GateFigure, GateFigure]:
        both = populations(self.kafka, GENERATION)
        return in_log(both, settle_s), in_cold(both, self.cold, settle_s)


def _kind(embedding: Embedding) -> Kind:
    return "post" if hasattr(embedding, "post_id") else "member"


@pytest.fixture
def world(kafka: KafkaSettings) -> World:
    return World(kafka)


def _figures(rows: Iterable[GateFigure]) -> list[float | None]:
    return [row.figure for row in rows]


@pytest.mark.broker
def test_what_is_complete_holds_and_says_how_much_it_is(world: World) -> None:
    log, cold = world.check()
    assert (log.holds, cold.holds, log.figure, cold.figure) == (True, True, 0, 0)
    assert log.note == cold.note
    assert log.note.startswith(f"{NUM} posts with the digest ")


@pytest.mark.broker
def test_each_fault_is_found_where_it_is(world: World) -> None:
    world.contexts(post_context(post_id="unencoded"), post_context(post_id="p1", revision=5), member_context())
    world.in_log(member_embedding("stranger"), post_embedding("stranger", 7), post_embedding("gone", 4))
    world.in_log(post_embedding("p2", 3), member_embedding("m2", 4, deleted=True))
    world.in_cold(post_embedding("p3", 3, deleted=True))
    log, cold = world.check()
    assert (log.holds, cold.holds) == (False, False)
    assert "1 missing such as unencoded" in log.note
    assert "1 stale such as p1" in log.note
    assert "2 extra such as gone, stranger" in log.note
    assert "1 missing such as m2" in log.note
    assert "1 extra such as stranger" in log.note
    assert log.figure == 6
    assert "2 missing such as p3, unencoded, 1 stale such as p1" in cold.note
    assert "dead-letters list" in log.note
    assert "build it again" in cold.note


@pytest.mark.broker
def test_extra_vectors_of_the_cold_tier_are_found_also_where_nobody_knows_their_ids(world: World) -> None:
    world.in_cold(post_embedding("stranger"), member_embedding("stranger"), member_embedding("other"))
    log, cold = world.check()
    assert _figures([log, cold]) == [0, 3]
    assert "1 extra such as stranger" in cold.note
    assert "2 extra without a context" in cold.note


@pytest.mark.broker
def test_a_newer_vector_than_the_contexts_of_the_beginning_is_no_fault(world: World) -> None:
    world.vectors(post_embedding("p1", 9), member_embedding("m1", 9))
    assert _figures(world.check()) == [0, 0]


@pytest.mark.broker
def test_what_is_under_way_is_waited_for(world: World) -> None:
    """Each change reaches the vectors a moment after its context, while both are read."""

    def live(stop: Event) -> None:
        number = 10
        while not stop.is_set():
            number += 1
            changed = f"p{number % NUM}"
            world.contexts(post_context(post_id=changed, revision=number), post_context(post_id=f"new{number}"))
            world.contexts(post_context(post_id="gone", revision=number, deleted=number % 2 == 0))
            world.vectors(post_embedding(changed, number), post_embedding(f"new{number}"))
            world.vectors(post_embedding("gone", number, deleted=number % 2 == 0))
            changes.append(number)

    changes: list[int] = []
    with in_thread(live):
        until(lambda: len(changes) > 3, "changes to come in")
        assert _figures(world.check(LONG_S)) == [0, 0]


def test_the_judgement_of_one_entity() -> None:
    live, dead, newer, deleted_later = Version(2, True), Version(2, False), Version(3, True), Version(3, False)
    assert [judge(live, vector) for vector in (live, newer, None, dead)] == [None, None, "missing", "missing"]
    assert [judge(newer, live), judge(deleted_later, live), judge(None, live)] == ["stale", "extra", "extra"]
    assert [judge(None, dead), judge(dead, None), judge(deleted_later, dead), judge(None, None)] == [None] * 4


def test_the_digest_knows_ids_and_revisions_and_no_order() -> None:
    versions = {"a": Version(1, True, 7), "b": Version(2, True)}
    reordered = {"b": Version(2, True), "gone": Version(9, False), "a": Version(1, True)}
    assert summary(versions) == summary(reordered)
    assert summary(versions) != summary({**versions, "a": Version(2, True)})
    assert summary(versions) != summary({"a": Version(2, True), "b": Version(1, True)})
