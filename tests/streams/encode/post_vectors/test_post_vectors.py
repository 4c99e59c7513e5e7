"""`post-vectors` on the real broker: who writes it, what stands in it after promotions, kills and zombies."""

import signal
from contextlib import ExitStack

import numpy as np
import pytest
from confluent_kafka.admin import NewTopic

from schemas import topics
from schemas.embeddings import Vector, decode_post_embedding, unpack_vector
from schemas.post_vectors import PostVector
from streams.encode.post_vectors.records import cut_vector
from streams.kafka.topics import ensure_topics
from tests.kit.data.contexts import post_context
from tests.kit.encoders import MendedEncoder, mended_vector_of, text_vector_of, vector_of
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.stages import EncodeStageSetup
from tests.kit.kafka.topics import read_topic
from tests.kit.post_vectors import POST_VECTORS_DIMENSION, Serving, newest_post_vectors, switches
from tests.kit.running import child, in_thread
from tests.kit.waiting import until

pytestmark = pytest.mark.broker


@pytest.fixture
def serving(encode: EncodeStageSetup) -> Serving:
    ensure_topics(encode.kafka, topics.POST_VECTOR_SPECS)
    return Serving()


@pytest.fixture
def other(clean_topics: RunningBroker) -> EncodeStageSetup:
    """Of another generation, whose vectors differ."""
    setup = EncodeStageSetup(clean_topics)
    setup.encoder = MendedEncoder()
    return setup


def _expected(vector: Vector) -> Vector:
    shorter = cut_vector(vector, POST_VECTORS_DIMENSION)
    assert shorter is not None
    return shorter


def _check(record: PostVector | None, vector: Vector) -> None:
    assert record is not None
    read = unpack_vector(record.vector)
    assert read is not None
    np.testing.assert_array_equal(read, _expected(vector))
    assert float(np.linalg.norm(read)) == pytest.approx(1)


def _until_switched(setup: EncodeStageSetup, times: int = 1) -> None:
    until(lambda: len(switches(setup.kafka)) >= times, "the switch of the post vectors", every_s=0.1)


def test_each_post_has_a_vector_and_a_deleted_one_a_tombstone(encode: EncodeStageSetup, serving: Serving) -> None:
    encode.send(post_context("one", post_id="p1", revision=3, language="en"), post_context("two", post_id="p2"))
    encode.send(post_context("the monitor's", post_id="nearline-canary-m-1"))
    serving.promote(encode.generation)
    with in_thread(encode.stage(post_vectors=serving.post_vectors_of(encode.generation)).run):
        until(lambda: newest_post_vectors(encode.kafka).keys() == {"p1", "p2"}, "both posts", every_s=0.1)
        encode.send(post_context(post_id="p2", revision=2, deleted=True))
        until(lambda: newest_post_vectors(encode.kafka)["p2"] is None, "the tombstone", every_s=0.1)
        _until_switched(encode)
    one = newest_post_vectors(encode.kafka)["p1"]
    _check(one, vector_of("one"))
    assert one is not None
    assert (one.generation, one.dimension, one.revision) == (encode.generation, POST_VECTORS_DIMENSION, 3)
    headers = {message.key(): dict(message.headers() or []) for message in read_topic(encode.kafka, "post-vectors")}
    for key, revision in ((b"p1", b"3"), (b"p2", b"2")):
        expected = {"generation": encode.generation.encode(), "dimension": b"6", "revision": revision}
        assert headers[key] == expected, key
    assert "text" not in encode.encoder.calls, "the prompt is the text, so nothing is encoded twice"
    assert encode.registry.get_sample_value("nearline_post_vectors_total", {"outcome": "written"}) == 2
    assert encode.registry.get_sample_value("nearline_post_vectors_total", {"outcome": "deleted"}) == 1


def test_where_a_prompt_is_more_than_its_text_the_text_is_encoded_for_itself(
    encode: EncodeStageSetup, serving: Serving
) -> None:
    encode.send(post_context("one", post_id="p1"))
    serving.promote(encode.generation)
    with in_thread(encode.stage(post_vectors=serving.post_vectors_of(encode.generation, is_text=False)).run):
        _until_switched(encode)
        until(lambda: "p1" in newest_post_vectors(encode.kafka), "the post", every_s=0.1)
    _check(newest_post_vectors(encode.kafka)["p1"], text_vector_of("one"))
    (embedding,) = (decode_post_embedding(message.value() or b"") for message in encode.posts())
    assert len(embedding.text_vector) == 4 * POST_VECTORS_DIMENSION, "in the same record, so in the same transaction"


def test_after_a_promotion_all_posts_are_written_again_and_one_record_says_from_when_on(
    encode: EncodeStageSetup, other: EncodeStageSetup, serving: Serving
) -> None:
    encode.send(*(post_context(f"text {n}", post_id=f"p{n}") for n in range(40)))
    serving.promote(encode.generation)
    with ExitStack() as stages:
        for setup in (encode, other):
            stages.enter_context(in_thread(setup.stage(post_vectors=serving.post_vectors_of(setup.generation)).run))
        _until_switched(encode)
        until(lambda: _all_of(encode, encode.generation, 40), "all posts", every_s=0.1)
        other.until_no_lag()
        for times, (setup, vector) in enumerate(((other, mended_vector_of), (encode, vector_of)), 2):
            serving.promote(setup.generation)
            _until_switched(encode, times)
            switch = switches(encode.kafka)[-1]
            assert switch.generation == setup.generation
            records = read_topic(encode.kafka, topics.POST_VECTORS)
            before = {m.key() for m in records if (m.offset() or 0) < switch.complete[m.partition() or 0]
                      and dict(m.headers() or [])["generation"] == setup.generation.encode()}  # fmt: skip
            assert before == {f"p{n}".encode() for n in range(40)}, "whoever has read up to `complete` has all of them"
            assert _all_of(encode, setup.generation, 40)
            _check(newest_post_vectors(encode.kafka)["p7"], vector("text 7"))


def test_who_has_not_heard_of_the_promotion_writes_nothing_after_it(
    encode: EncodeStageSetup, other: EncodeStageSetup, serving: Serving
) -> None:
    encode.send(*(post_context(f"text {n}", post_id=f"p{n}") for n in range(20)))
    serving.promote(encode.generation)
    with in_thread(encode.stage(post_vectors=serving.post_vectors_of(encode.generation)).run):
        _until_switched(encode)
    serving.hears_nothing(encode.generation)
    serving.promote(other.generation)
    with in_thread(other.stage(post_vectors=serving.post_vectors_of(other.generation)).run):
        _until_switched(encode, 2)
        with in_thread(encode.stage(post_vectors=serving.post_vectors_of(encode.generation)).run):
            encode.send(*(post_context(f"new {n}", post_id=f"p{n}", revision=2) for n in range(20)))
            encode.until_no_lag()
            other.until_no_lag()
            # Each of the two may own half of the partitions now, so the rest comes when the late one has left.
        until(lambda: _revisions(encode, other) == [2] * 20, "the new texts", every_s=0.1)
    written = [dict(message.headers() or []) for message in read_topic(encode.kafka, topics.POST_VECTORS)]
    revisions = {headers["revision"] for headers in written if headers["generation"] == encode.generation.encode()}
    assert b"2" not in revisions, "the late one has written nothing"
    assert [switch.generation for switch in switches(encode.kafka)] == [encode.generation, other.generation]


def test_kills_lose_and_repeat_nothing(encode: EncodeStageSetup, serving: Serving) -> None:
    encode.send(*(post_context(f"text {n}", post_id=f"p{n}") for n in range(200)))
    with in_thread(encode.stage().run):
        encode.until_no_lag()
    arguments = (encode.kafka.bootstrap_servers or "", encode.generation)
    for place in ("transaction.offsets-sent", "transaction.committed"):
        with child("tests.kit.children.post_vectors", *arguments, f"{place}:1") as process:
            assert process.wait(60) == 86
    with child("tests.kit.children.post_vectors", *arguments) as process:
        _until_switched(encode)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    keys = [message.key() for message in read_topic(encode.kafka, topics.POST_VECTORS)]
    assert sorted(keys) == sorted(f"p{n}".encode() for n in range(200)), "each once"


def test_a_topic_that_somebody_else_has_made_ends_no_other_loop(
    clean_topics: RunningBroker, encode: EncodeStageSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.encode.post_vectors.writer._AGAIN_S", 0.2)
    clean_topics.admin.create_topics([NewTopic(topics.POST_VECTORS, 3, 1)])[topics.POST_VECTORS].result(30)
    serving = Serving()
    serving.promote(encode.generation)
    with in_thread(encode.stage(post_vectors=serving.post_vectors_of(encode.generation)).run):
        refusals, written = (
            "nearline_post_vectors_refusals_total",
            ("nearline_post_vectors_total", {"outcome": "written"}),
        )
        until(lambda: (encode.registry.get_sample_value(refusals) or 0) > 0, "the refusal", every_s=0.1)
        encode.send(post_context("one", post_id="p1"))
        encode.until_no_lag()
        clean_topics.admin.delete_topics([topics.POST_VECTORS])[topics.POST_VECTORS].result(30)
        until(lambda: encode.registry.get_sample_value(*written) == 1, "the vector, once it can be", every_s=0.1)
        until(lambda: "p1" in newest_post_vectors(encode.kafka), "its transaction", every_s=0.1)


def _all_of(setup: EncodeStageSetup, generation: str, number: int) -> bool:
    found = newest_post_vectors(setup.kafka)
    return len(found) == number and {record.generation for record in found.values() if record} == {generation}


def _revisions(setup: EncodeStageSetup, other: EncodeStageSetup) -> list[int]:
    """Of the posts whose newest vector is of the other generation."""
    records = newest_post_vectors(setup.kafka).values()
    return [record.revision for record in records if record is not None and record.generation == other.generation]
