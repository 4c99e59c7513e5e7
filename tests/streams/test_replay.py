"""Dead letters that are sent back once their cause is mended: what was missing comes in, and nothing newer is lost."""

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pytest
from confluent_kafka import Producer

from encoders.errors import Outcome
from schemas import topics
from schemas.contexts import MemberContext, PostContext
from schemas.embeddings import PostEmbedding, decode_post_embedding, pack_vector
from streams.kafka.clients import producer_config
from streams.kafka.offsets import OffsetReader
from streams.operate.dead_letter_box import ALL, DeadLetter, letters
from streams.operate.dead_letter_replay import Marked, replay
from streams.settings import KafkaSettings
from tests.kit.data.events import ago, line, post_created, post_deleted, post_updated
from tests.kit.encoders import POISON, HashEncoder, vector_of
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.stages import ContextStageSetup, EncodeStageSetup
from tests.kit.kafka.topics import read_topic
from tests.kit.running import in_thread

pytestmark = pytest.mark.broker

DAY_MS = 24 * 3600 * 1000


def found_letters(kafka: KafkaSettings) -> list[DeadLetter]:
    with closing(OffsetReader(kafka)) as reader:
        return list(letters(kafka, reader))


def send_back(kafka: KafkaSettings) -> Marked:
    with closing(OffsetReader(kafka)) as reader:
        return replay(kafka, reader, ALL)


def send_by_a_clock_that_is_behind(kafka: KafkaSettings, *events: dict[str, Any]) -> None:
    producer = Producer(producer_config(kafka))
    behind_ms = int(time.time() * 1000) - 3 * DAY_MS
    for event in events:
        producer.produce(topics.POSTS, line(event), event["post_id"].encode(), timestamp=behind_ms)
    assert producer.flush(30) == 0


def updated(post_id: str, text: str) -> dict[str, Any]:
    """An update of half an hour ago."""
    return post_updated(created(post_id), text, at=ago(minutes=30))


def created(post_id: str, text: str = "old") -> dict[str, Any]:
    return post_created(post_id, text, at=ago(hours=1))


def test_an_input_event_is_sent_again_and_overwrites_nothing_newer(contexts: ContextStageSetup) -> None:
    gone = post_deleted("deleted")
    send_by_a_clock_that_is_behind(contexts.kafka, *(created(name) for name in ("missing", "updated", "deleted")))
    with in_thread(contexts.stage().run):
        contexts.send(updated("updated", "newer"), gone)
        contexts.until_done()
        dead_letters = found_letters(contexts.kafka)
        assert {(letter.cause.topic, letter.key) for letter in dead_letters} == {
            (topics.POSTS, name) for name in (b"missing", b"updated", b"deleted")
        }
        assert all("24 h past" in letter.cause.cause for letter in dead_letters)
        assert "missing" not in contexts.posts()
        assert send_back(contexts.kafka) == Marked(3, 0)
        contexts.until_done()
    posts = contexts.posts()
    assert [post.text for post in posts["missing"]] == ["old"]
    assert [post.text for post in posts["updated"]] == ["newer"]
    assert [post.deleted for post in posts["deleted"]] == [True]
    assert found_letters(contexts.kafka) == [], "what was sent back is no dead letter again"


class Mended(HashEncoder):
    """Encodes everything."""

    def _outcome(self, context: PostContext | MemberContext) -> Outcome:
        return vector_of(context.text) if isinstance(context, PostContext) else None


def test_a_later_record_is_published_again_as_it_is_now(
    contexts: ContextStageSetup, clean_topics: RunningBroker
) -> None:
    encode = EncodeStageSetup(clean_topics)
    contexts.send(created("missing", POISON), created("updated", POISON))
    with in_thread(contexts.stage().run):
        with in_thread(encode.stage().run):
            _until_done(contexts, encode)
            contexts.send(updated("updated", "newer"))
            _until_done(contexts, encode)
        dead_letters = found_letters(contexts.kafka)
        assert {(letter.cause.topic, letter.key) for letter in dead_letters} == {
            (topics.POST_CONTEXTS, name) for name in (b"missing", b"updated")
        }
        inputs_before = len(read_topic(contexts.kafka, topics.POSTS))
        encode.encoder = Mended()
        with in_thread(encode.stage().run):
            assert send_back(contexts.kafka) == Marked(2, 0)
            _until_done(contexts, encode)
    assert len(read_topic(contexts.kafka, topics.POSTS)) == inputs_before
    embedded = [decode_post_embedding(message.value() or b"") for message in encode.posts()]
    assert [(embedding.revision, embedding.vector) for embedding in _of("missing", embedded)] == [
        (2, pack_vector(vector_of(POISON)))
    ]
    newer = pack_vector(vector_of("newer"))
    assert [(embedding.revision, embedding.vector) for embedding in _of("updated", embedded)] == [
        (2, newer),
        (3, newer),
    ]


def _until_done(contexts: ContextStageSetup, encode: EncodeStageSetup) -> None:
    contexts.until_done()
    encode.until_no_lag()


def _of(post_id: str, embedded: Sequence[PostEmbedding]) -> list[PostEmbedding]:
    return [embedding for embedding in embedded if embedding.post_id == post_id]
