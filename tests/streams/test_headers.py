"""Headers whose names are no UTF-8: the client raises for them once, and then gives what ends the process."""

from pathlib import Path

import pytest

from schemas import topics
from schemas.contexts import encode_context
from schemas.embeddings import encode_embedding
from schemas.headers import UNREADABLE, headers_of, read_origin_ms
from streams.kafka.offsets import OffsetReader
from streams.operate.dead_letter_box import letters
from streams.settings import KafkaSettings
from tests.kit.data.contexts import post_context
from tests.kit.data.embeddings import post_embedding
from tests.kit.data.events import line, post_created
from tests.kit.encoders import POISON
from tests.kit.journal_tier import JournalTier
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.stages import ContextStageSetup, EncodeStageSetup, IndexLoopSetup
from tests.kit.kafka.strange_headers import send_strange
from tests.kit.kafka.topics import read_topic
from tests.kit.running import in_thread

pytestmark = pytest.mark.broker


def test_all_headers_of_the_record_are_lost_and_nothing_else(clean_topics: RunningBroker, tmp_path: Path) -> None:
    kafka = ContextStageSetup(clean_topics, tmp_path).kafka
    send_strange(kafka, topics.POSTS, [("p", b"{}")])
    (record,) = read_topic(kafka, topics.POSTS)
    for _ in range(3):
        assert (headers_of(record), read_origin_ms(record)) == ([UNREADABLE], None)
    assert (record.key(), record.value()) == (b"p", b"{}")


def test_the_context_stage_goes_on(clean_topics: RunningBroker, tmp_path: Path) -> None:
    contexts = ContextStageSetup(clean_topics, tmp_path)
    send_strange(contexts.kafka, topics.POSTS, [("bad", b"{"), ("good", line(post_created("good")))])
    send_strange(contexts.kafka, topics.ACTIVITY_BY_POST, [("good", b"junk")])
    send_strange(contexts.kafka, topics.REPUBLISH, [("good", b"")])
    with in_thread(contexts.stage().run):
        contexts.until_done()
    assert _letters(contexts.kafka) == [(topics.ACTIVITY_BY_POST, b"good"), (topics.POSTS, b"bad")]
    assert list(contexts.posts()) == ["good"]


def test_the_encode_stage_goes_on(clean_topics: RunningBroker) -> None:
    encode = EncodeStageSetup(clean_topics)
    sent = [post_context(POISON, post_id="bad"), post_context(post_id="good")]
    send_strange(encode.kafka, topics.POST_CONTEXTS, [(context.post_id, encode_context(context)) for context in sent])
    with in_thread(encode.stage().run):
        encode.until_no_lag()
    assert _letters(encode.kafka) == [(topics.POST_CONTEXTS, b"bad")]
    assert [message.key() for message in encode.posts()] == [b"good"]


def test_the_index_stage_goes_on(clean_topics: RunningBroker, tmp_path: Path) -> None:
    index = IndexLoopSetup(clean_topics, tmp_path)
    send_strange(index.kafka, index.posts, [("bad", b"\xc1"), ("good", encode_embedding(post_embedding("good")))])
    with in_thread(index.loop(JournalTier(index.journal)).run):
        index.until_no_lag()
    assert _letters(index.kafka) == [(index.posts, b"bad")]
    assert set(index.durable()) == {"good"}


def _letters(kafka: KafkaSettings) -> list[tuple[str, bytes | None]]:
    """By topic and key. None of them has headers of its own that could be read."""
    dead_letters = list(letters(kafka, OffsetReader(kafka)))
    assert all(letter.headers == [UNREADABLE] for letter in dead_letters)
    return sorted((letter.cause.topic, letter.key) for letter in dead_letters)
