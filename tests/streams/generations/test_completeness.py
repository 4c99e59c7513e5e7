"""When a generation that is being built has everything up to its goal, by what its groups have committed."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from msgspec.structs import replace

from schemas import topics
from schemas.generations import GenerationRecord, Pointer
from schemas.ids import Generation, Offset, Partition
from schemas.topics import encode_group, generation_topics, index_group
from streams.generations import acts
from streams.generations.completeness import Completeness, say_ready_if_complete
from streams.generations.log import change_generations, read_generations
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings
from tests.kit.data.generations import AT, generation_record
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.groups import commit
from tests.kit.kafka.topics import produce, transaction

pytestmark = pytest.mark.broker

B = Generation("b-2")
CONTEXTS, EMBEDDINGS = topics.POST_CONTEXTS, topics.post_embeddings(B)
LOOKS = 3
"""A partition that has not moved since the last look is looked at more closely."""


@pytest.fixture
def record(kafka: KafkaSettings) -> GenerationRecord:
    """It is built beside another one, up to three contexts of a partition and none of the others."""
    ensure_topics(kafka, generation_topics(B))
    produce(kafka, CONTEXTS, 0, 3)
    goal = {CONTEXTS: {Partition(0): Offset(3), Partition(1): Offset(0)}}
    record = generation_record(B, "building", "green", goal=goal)
    change_generations(kafka, lambda _: [generation_record("a-1"), record, Pointer(Generation("a-1"))])
    return record


@pytest.fixture
def completeness(kafka: KafkaSettings, record: GenerationRecord) -> Iterator[Completeness]:
    with closing(Completeness(kafka, record)) as completeness:
        yield completeness


def is_complete(completeness: Completeness) -> bool:
    return any(completeness.look() for _ in range(LOOKS))


def test_everything_up_to_the_goal_must_be_encoded_and_then_indexed(
    clean_topics: RunningBroker, kafka: KafkaSettings, completeness: Completeness
) -> None:
    assert not is_complete(completeness)
    produce(kafka, EMBEDDINGS, 0, 2)
    commit(clean_topics, encode_group(B), {(CONTEXTS, 0): 2})
    commit(clean_topics, index_group(B), {(EMBEDDINGS, 0): 2})
    assert not is_complete(completeness), "one context is left"
    produce(kafka, EMBEDDINGS, 1, 1)
    produce(kafka, CONTEXTS, 0, 5)
    commit(clean_topics, encode_group(B), {(CONTEXTS, 0): 3})
    assert not is_complete(completeness), "one embedding is left"
    produce(kafka, EMBEDDINGS, 0, 9)
    commit(clean_topics, index_group(B), {(EMBEDDINGS, 1): 1})
    assert is_complete(completeness), "what came after the goal is not waited for"


def test_what_no_reader_ever_gets_is_not_waited_for(
    clean_topics: RunningBroker, kafka: KafkaSettings, record: GenerationRecord
) -> None:
    """The goal may lie behind records of a transaction that was aborted, and the end of the embeddings behind the
    marker of one that was committed."""
    transaction(kafka, CONTEXTS, 1, commit=False)
    transaction(kafka, EMBEDDINGS, 0, commit=True)
    goal = {CONTEXTS: {Partition(0): Offset(3), Partition(1): Offset(2)}}
    commit(clean_topics, encode_group(B), {(CONTEXTS, 0): 3})
    commit(clean_topics, index_group(B), {(EMBEDDINGS, 0): 1})
    with closing(Completeness(kafka, replace(record, goal=goal))) as completeness:
        assert is_complete(completeness)


def test_a_goal_beyond_the_end_of_a_broker_that_lost_records_is_reached_at_its_end(
    clean_topics: RunningBroker, kafka: KafkaSettings, record: GenerationRecord
) -> None:
    commit(clean_topics, encode_group(B), {(CONTEXTS, 0): 3})
    goal = {CONTEXTS: {Partition(0): Offset(100)}}
    with closing(Completeness(kafka, replace(record, goal=goal))) as completeness:
        assert is_complete(completeness)


def test_it_is_said_once_whoever_finds_out(
    clean_topics: RunningBroker, kafka: KafkaSettings, completeness: Completeness
) -> None:
    assert not say_ready_if_complete(kafka, completeness, B, "one")
    assert read_generations(kafka).records[B].state == "building"
    commit(clean_topics, encode_group(B), {(CONTEXTS, 0): 3})
    for who in ("one", "another"):
        assert say_ready_if_complete(kafka, completeness, B, who)
    record = read_generations(kafka).records[B]
    assert (record.state, [(act.what, act.who) for act in record.history]) == ("ready", [("ready", "one")])


def test_one_that_was_retired_meanwhile_stays_retired(
    clean_topics: RunningBroker, kafka: KafkaSettings, completeness: Completeness
) -> None:
    commit(clean_topics, encode_group(B), {(CONTEXTS, 0): 3})
    change_generations(kafka, lambda state: acts.retire(state, B, acts.By("operator", AT)))
    assert say_ready_if_complete(kafka, completeness, B, "cold")
    assert read_generations(kafka).records[B].state == "retired"
