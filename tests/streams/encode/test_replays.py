"""Contexts that are encoded again on request: all that was asked for, nothing older than what is there, and new
contexts first."""

import signal
import threading
from collections import defaultdict
from collections.abc import Mapping

import pytest
from confluent_kafka import Message

from encoders.errors import Outcome
from schemas import topics
from schemas.contexts import PostContext
from schemas.dead_letters import from_headers
from schemas.embeddings import PostEmbedding, decode_member_embedding, decode_post_embedding, pack_vector
from schemas.replays import ReplayRequest, encode_request
from streams.kafka.crash_points import EXIT_STATUS
from streams.operate.replay import ReplaySelection
from tests.kit.data.contexts import member_context, post_context
from tests.kit.encoders import HashEncoder, MendedEncoder, Prepared, mended_vector_of, vector_of
from tests.kit.kafka.stages import EncodeStageSetup
from tests.kit.kafka.topics import Sender, read_topic
from tests.kit.running import RecordedHeartbeat, child, in_thread
from tests.kit.waiting import until

pytestmark = pytest.mark.broker


def run_until_done(encode: EncodeStageSetup, encoder: HashEncoder | None = None) -> None:
    encode.encoder = encoder or encode.encoder
    with in_thread(encode.stage().run):
        encode.until_no_lag()


def embeddings_by_key(encode: EncodeStageSetup) -> Mapping[str, list[PostEmbedding]]:
    """In the order of their offsets."""
    by_key: dict[str, list[PostEmbedding]] = defaultdict(list)
    for message in encode.posts():
        embedding = decode_post_embedding(message.value() or b"")
        by_key[embedding.post_id].append(embedding)
    return by_key


def numbered(count: int, **fields: object) -> list[PostContext]:
    return [post_context(f"text {n}", post_id=f"p{n}", **fields) for n in range(count)]


def last_of(messages: list[Message], key: bytes) -> Message:
    return [message for message in messages if message.key() == key][-1]


def test_a_mended_encoders_vectors_come_behind_the_old_ones(encode: EncodeStageSetup) -> None:
    headers = [(topics.ORIGIN_HEADER, b"1000")]
    encode.send(*numbered(40), post_context(post_id="gone", revision=7, deleted=True), headers=headers)
    encode.send(member_context(member_id="m", headline="baker", revision=3), headers=headers)
    run_until_done(encode)
    assert encode.replay() == ({"post": 41, "member": 1}, [])
    run_until_done(encode, MendedEncoder())
    by_key = embeddings_by_key(encode)
    for number in range(40):
        before, after = by_key[f"p{number}"]
        assert (before.revision, after.revision) == (1, 1)
        assert before.vector == pack_vector(vector_of(f"text {number}"))
        assert after.vector == pack_vector(mended_vector_of(f"text {number}"))
    assert [(each.revision, each.deleted) for each in by_key["gone"]] == [(7, True), (7, True)]
    member = last_of(encode.members(), b"m")
    assert decode_member_embedding(member.value() or b"").vector == pack_vector(mended_vector_of("baker"))
    assert member.headers() in (None, []), "how fresh it is counts nobody"
    assert last_of(encode.posts(), b"p0").headers() in (None, [])


def test_only_what_was_asked_for_is_encoded_again(encode: EncodeStageSetup) -> None:
    encode.send(*numbered(30), member_context(member_id="p3", headline="a member with the id of a post"))
    run_until_done(encode)
    selection = ReplaySelection(ids=frozenset({b"p3", b"p29", b"nobody"}))
    assert encode.replay("post", selection=selection) == ({"post": 2}, [b"nobody"])
    run_until_done(encode, MendedEncoder())
    again = {key for key, embeddings in embeddings_by_key(encode).items() if len(embeddings) == 2}
    assert again == {"p3", "p29"}
    assert len(encode.members()) == 1


def test_a_context_that_has_changed_since_is_not_encoded_in_its_old_form(encode: EncodeStageSetup) -> None:
    """The log of embeddings is compacted by offset: an older revision at its end would be all that is left."""
    encode.send(*numbered(20))
    run_until_done(encode)
    encode.replay()
    changed = [post_context("newer", post_id=f"p{n}", revision=2, deleted=n % 4 == 0) for n in range(0, 20, 2)]
    encode.send(*changed)
    run_until_done(encode, MendedEncoder())
    for number in range(20):
        revisions = [embedding.revision for embedding in embeddings_by_key(encode)[f"p{number}"]]
        assert revisions == ([1, 1] if number % 2 else [1, 2])


def test_asked_for_by_several_commands(encode: EncodeStageSetup) -> None:
    """Each has seen another end of the log."""
    encode.send(*numbered(4))
    run_until_done(encode)
    encode.replay()
    encode.send(post_context("newer", post_id="p0", revision=2))
    encode.replay()
    encode.replay()
    run_until_done(encode)
    encode.send(post_context("newest", post_id="p1", revision=2))
    encode.replay()
    run_until_done(encode, MendedEncoder())
    by_key = embeddings_by_key(encode)
    for key, newest, text in (("p0", 2, "newer"), ("p1", 2, "newest"), ("p2", 1, "text 2")):
        revisions = [embedding.revision for embedding in by_key[key]]
        assert revisions == sorted(revisions)
        assert revisions[-1] == newest
        assert by_key[key][-1].vector == pack_vector(mended_vector_of(text))
    assert len(by_key["p2"]) in (3, 4), "equal requests in one batch are one"


def test_requests_that_cannot_be_read_stand_alone(encode: EncodeStageSetup) -> None:
    encode.send(*numbered(3))
    run_until_done(encode)
    requests = topics.replay_requests("encode", "post", encode.generation)
    Sender(encode.kafka).send(requests, [("garbage", b"{"), ("nothing", None)])
    encode.replay()
    Sender(encode.kafka).send(requests, [("another key", encode_request(ReplayRequest(0, 1)))])  # type: ignore[arg-type]
    run_until_done(encode)
    assert {len(embeddings) for embeddings in embeddings_by_key(encode).values()} == {2}
    letters = read_topic(encode.kafka, topics.DEAD_LETTERS)
    assert {letter.key() for letter in letters} == {b"garbage", b"nothing"}
    assert all("request" in from_headers(letter.headers()).cause for letter in letters)


class Slow(MendedEncoder):
    """Every turn needs leave, and takes so long that turns stay as small as they can be."""

    def __init__(self, kind: str = "post") -> None:
        super().__init__()
        self.leave = threading.Semaphore(0)
        self._kind = kind

    def goes_on_until(self, post: tuple[str, int]) -> bool:
        """Gives leave for one more turn unless this post is encoded."""
        if post not in self.posts:
            self.leave.release()
        return post in self.posts

    def run(self, prepared: Prepared) -> list[Outcome]:
        prepared.device_s = 0.2
        if prepared.kind == self._kind:
            self.calls.append("waits")
            assert self.leave.acquire(timeout=60)
        return super().run(prepared)


def test_a_new_context_does_not_wait_for_those_that_are_encoded_again(encode: EncodeStageSetup) -> None:
    encode.send(*numbered(1000))
    run_until_done(encode)
    encode.encoder = slow = Slow()
    encode.replay()
    with in_thread(encode.stage().run):
        until(lambda: "waits" in slow.calls, "the first of them")
        encode.send(post_context("new", post_id="new"))
        until(lambda: slow.goes_on_until(("new", 1)), "the new one", every_s=0.1)
        assert slow.posts.index(("new", 1)) < 500
        slow.leave.release(100)
        encode.until_no_lag()
    assert {len(embeddings) for key, embeddings in embeddings_by_key(encode).items() if key != "new"} == {2}


def test_nothing_is_encoded_again_while_another_loop_has_new_contexts(encode: EncodeStageSetup) -> None:
    """And a loop that stands back does not count as one that stands still."""
    encode.send(*numbered(50))
    run_until_done(encode)
    encode.encoder = slow = Slow("member")
    heartbeats = defaultdict[str, RecordedHeartbeat](RecordedHeartbeat)
    with in_thread(encode.stage(heartbeats.__getitem__).run):
        # Until the second one has joined, the first loop for posts owns all of them.
        until(
            lambda: [len(heartbeats[name].owned) for name in ("post", "post-2", "member")] == [4, 4, 8], "each its own"
        )
        encode.send(member_context(headline="baker"))
        until(lambda: "waits" in slow.calls, "the member")
        encode.replay("post")
        posts = [heartbeats["post"], heartbeats["post-2"]]
        for heartbeat in posts:
            while heartbeat.beats.acquire(blocking=False):
                pass
        assert all(heartbeat.beats.acquire(timeout=60) for heartbeat in posts for _ in range(3))
        assert slow.posts == []
        slow.leave.release()
        encode.until_no_lag()
    assert len(slow.posts) == 50


def test_kills_and_crashes_lose_and_repeat_nothing(encode: EncodeStageSetup) -> None:
    """While contexts change. Each embedding is there once, and those of a key are in the order of their revisions."""
    encode.send(*numbered(600))
    run_until_done(encode)
    encode.replay()
    arguments = (encode.kafka.bootstrap_servers or "", encode.generation)
    places = ("transaction.outputs-sent", "transaction.offsets-sent", "transaction.committed")
    for round_, place in enumerate(places):
        encode.send(*(post_context(f"newer {n}", post_id=f"p{n}", revision=2) for n in range(round_, 300, 6)))
        with child("tests.kit.children.encode_stage", *arguments, f"{place}:3", "mended") as process:
            assert process.wait(60) == EXIT_STATUS
    with child("tests.kit.children.encode_stage", *arguments, "", "mended") as process:
        before = len(encode.posts())
        until(lambda: len(encode.posts()) > before, "some more embeddings", every_s=0.1)
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    encode.send(*(post_context(f"newer {n}", post_id=f"p{n}", revision=2) for n in range(3, 300, 6)))
    run_until_done(encode, MendedEncoder())
    by_key = embeddings_by_key(encode)
    assert len(by_key) == 600
    for number in range(600):
        embeddings = by_key[f"p{number}"]
        revisions = [embedding.revision for embedding in embeddings]
        is_changed = number < 300 and number % 6 < 4
        assert revisions in (([1, 2], [1, 1, 2]) if is_changed else ([1, 1],)), number
        text = f"newer {number}" if is_changed else f"text {number}"
        assert embeddings[-1].vector == pack_vector(mended_vector_of(text))
