"""The encode stage on the real broker, with an encoder whose vectors are known."""

import signal
import threading
from collections import defaultdict

import numpy as np
import pytest

from encoders.errors import EncodingFailed, Outcome
from schemas import stages, topics
from schemas.contexts import encode_context
from schemas.dead_letters import from_headers
from schemas.embeddings import decode_member_embedding, decode_post_embedding, pack_vector
from schemas.ids import ContextVersion, MemberId, Micros, PostId
from streams.kafka.topics import ensure_topics
from tests.kit.data.contexts import member_context, post_context
from tests.kit.encoders import POISON, HashEncoder, Prepared, vector_of
from tests.kit.kafka.groups import until_no_lag
from tests.kit.kafka.stages import EncodeStageSetup
from tests.kit.kafka.topics import Sender, all_places, read_topic
from tests.kit.running import RecordedHeartbeat, child, in_thread
from tests.kit.waiting import until

pytestmark = pytest.mark.broker


def test_contexts_become_embeddings(encode: EncodeStageSetup) -> None:
    encode.send(
        post_context("one", post_id="p1", revision=3, author_id=MemberId("m"), created_at_us=Micros(7)),
        post_context(post_id="p2", revision=4, deleted=True),
    )
    encode.send(
        member_context(
            member_id="m1", headline="baker", acted=[PostId("p1")], hidden=[PostId("p2")], seen=[PostId("p3")]
        ),
        member_context(member_id="m2", headline=None),
    )
    heartbeats = defaultdict[str, RecordedHeartbeat](RecordedHeartbeat)
    with in_thread(encode.stage(heartbeats.__getitem__).run):
        encode.until_no_lag()
        for heartbeat in heartbeats.values():
            heartbeat.until_turned()
        owned = [place for heartbeat in heartbeats.values() for place in heartbeat.owned]
    reads = stages.encode_reads(encode.generation).topics
    assert (len(owned), set(owned)) == (16, all_places(encode.kafka, *reads)), "each loop says what is its own"
    posts = {message.key(): decode_post_embedding(message.value() or b"") for message in encode.posts()}
    members = {message.key(): decode_member_embedding(message.value() or b"") for message in encode.members()}
    assert posts[b"p1"].vector == pack_vector(vector_of("one"))
    assert (posts[b"p1"].revision, posts[b"p1"].author_id, posts[b"p1"].created_at_us) == (3, "m", 7)
    assert (posts[b"p2"].revision, posts[b"p2"].deleted, posts[b"p2"].vector) == (4, True, b"")
    assert members[b"m1"].vector == pack_vector(vector_of("baker"))
    assert (members[b"m1"].acted, members[b"m1"].hidden, members[b"m1"].seen) == (["p1"], ["p2"], ["p3"])
    assert (members[b"m2"].deleted, members[b"m2"].vector) == (False, b"")


def test_a_generation_encodes_the_contexts_of_the_version_that_it_reads(encode: EncodeStageSetup) -> None:
    second = ContextVersion(2)
    names = topics.context_names(second)
    ensure_topics(encode.kafka, topics.context_topics(second))
    encode.send(post_context("old", post_id="p1", revision=7))
    Sender(encode.kafka).send(names.post_contexts, [("p1", encode_context(post_context("new", post_id="p1")))])
    Sender(encode.kafka).send(names.member_contexts, [("m1", encode_context(member_context(member_id="m1")))])
    reads = stages.encode_reads(encode.generation, second)
    with in_thread(encode.stage(contexts=second).run):
        until_no_lag(encode.kafka, reads.group, reads.topics)
    (post,) = (decode_post_embedding(message.value() or b"") for message in encode.posts())
    assert post.vector == pack_vector(vector_of("new"))
    assert [message.key() for message in encode.members()] == [b"m1"]


def test_only_the_newest_revision_of_a_batch_is_encoded_and_carries_the_oldest_origin(encode: EncodeStageSetup) -> None:
    for revision, origin in ((1, b"1000"), (2, b"3000"), (3, b"2000")):
        encode.send(post_context(post_id="p", revision=revision), headers=[(topics.ORIGIN_HEADER, origin)])
    encode.send(post_context(post_id="p", revision=4))
    with in_thread(encode.stage().run):
        encode.until_no_lag()
    (message,) = encode.posts()
    assert decode_post_embedding(message.value() or b"").revision == 4
    assert message.headers() == [(topics.ORIGIN_HEADER, b"1000")]
    assert encode.encoder.posts == [("p", 4)]


def test_what_can_never_be_encoded_stands_alone(encode: EncodeStageSetup) -> None:
    encode.send(
        *(post_context(post_id=f"p{n}", text=f"text {n}") for n in range(30)),
        post_context(post_id="poison", text=POISON),
    )
    Sender(encode.kafka).send(topics.POST_CONTEXTS, [("garbage", b"{"), ("nothing", None)])
    encode.send(member_context(member_id="m", headline=POISON), member_context(member_id="fine", headline="baker"))
    with in_thread(encode.stage().run):
        encode.until_no_lag()
    assert {message.key() for message in encode.posts()} == {f"p{n}".encode() for n in range(30)}
    assert [message.key() for message in encode.members()] == [b"fine"]
    causes = {m.key(): from_headers(m.headers()) for m in read_topic(encode.kafka, topics.DEAD_LETTERS)}
    assert set(causes) == {b"poison", b"garbage", b"nothing", b"m"}
    assert causes[b"poison"].cause == "the text is poison"
    assert {cause.stage for cause in causes.values()} == {"encode"}
    assert encode.metric("contexts_total", kind="post", outcome="encoded") == 30
    assert encode.metric("contexts_total", kind="post", outcome="dead_letter") == 3
    assert encode.metric("contexts_total", kind="member", outcome="dead_letter") == 1
    assert (encode.metric("queue_wait_seconds_count", kind="member") or 0) > 0
    assert (encode.metric("tokenise_seconds_total", kind="post") or 0) > 0


def test_a_flood_of_members_does_not_stand_in_front_of_posts(encode: EncodeStageSetup) -> None:
    class Gated(HashEncoder):
        """Every turn of members needs leave; posts do not."""

        def __init__(self) -> None:
            super().__init__()
            self.leave = threading.Semaphore(1)

        def goes_on_until_a_post(self) -> bool:
            if "post" not in self.calls:
                self.leave.release()
            return "post" in self.calls

        def run(self, prepared: Prepared) -> list[Outcome]:
            assert prepared.kind == "post" or self.leave.acquire(timeout=30)
            return super().run(prepared)

    encode.encoder = gated = Gated()
    encode.send(*(member_context(member_id=f"m{n}", headline="baker") for n in range(500)))
    with in_thread(encode.stage().run):
        until(lambda: "member" in gated.calls, "the flood to begin")
        encode.send(post_context(post_id="p"))
        until(gated.goes_on_until_a_post, "the post to be encoded", every_s=0.1)
        assert gated.calls.count("member") < 20
        gated.leave.release(500)
        encode.until_no_lag()
    assert [message.key() for message in encode.posts()] == [b"p"]


def test_a_slow_batch_gives_signs_of_life(encode: EncodeStageSetup) -> None:
    """A turn of a large model may take minutes. The supervisor must not take the process for a stalled one."""
    heartbeat = RecordedHeartbeat()

    class Slow(HashEncoder):
        def run(self, prepared: Prepared) -> list[Outcome]:
            assert all(heartbeat.beats.acquire(timeout=20) for _ in range(2)), "no sign within a turn"
            return super().run(prepared)

    encode.encoder = Slow()
    encode.send(post_context(post_id="p"))
    with in_thread(encode.stage(lambda _: heartbeat).run):
        encode.until_no_lag()
    assert encode.encoder.posts == [("p", 1)]


def test_a_failing_device_ends_the_stage_and_commits_nothing(encode: EncodeStageSetup) -> None:
    class Broken(HashEncoder):
        def run(self, prepared: Prepared) -> list[Outcome]:
            raise EncodingFailed("injected: the device is away")

    healthy, encode.encoder = encode.encoder, Broken()
    encode.send(post_context(post_id="p"))
    with pytest.raises(EncodingFailed, match="the device is away"):
        encode.stage().run(threading.Event())
    encode.encoder = healthy
    with in_thread(encode.stage().run):
        encode.until_no_lag()
    assert [message.key() for message in encode.posts()] == [b"p"]
    assert read_topic(encode.kafka, topics.DEAD_LETTERS) == []


def test_kills_and_crashes_lose_and_repeat_nothing(encode: EncodeStageSetup) -> None:
    """Exactly once: each context has one embedding, whatever happens between two steps."""
    contexts = [post_context(post_id=f"p{n}", text=f"text {n}") for n in range(600)]
    encode.send(*contexts)
    arguments = (encode.kafka.bootstrap_servers or "", encode.generation)
    for place in ("transaction.outputs-sent", "transaction.offsets-sent", "transaction.committed"):
        with child("tests.kit.children.encode_stage", *arguments, f"{place}:2") as process:
            assert process.wait(40) == 86
    with child("tests.kit.children.encode_stage", *arguments) as process:
        until(lambda: len(encode.posts()) > 200, "some more embeddings", every_s=0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    with in_thread(encode.stage().run):
        encode.until_no_lag()
    embeddings = encode.posts()
    assert sorted(message.key() or b"" for message in embeddings) == sorted(f"p{n}".encode() for n in range(600))
    assert np.unique([decode_post_embedding(message.value() or b"").vector for message in embeddings]).size == 600
