"""The context stage on the real broker: what comes out, and that it comes out exactly once whatever dies."""

import shutil
import signal
from collections.abc import Sequence
from threading import Event
from typing import Any, cast

import pytest
from confluent_kafka import Message
from structlog.testing import capture_logs

from contexts.settings import ContextRules
from schemas import stages, topics
from schemas.dead_letters import DeadLetterCause, Headers, from_headers
from streams.contexts import processor as contexts_processor
from streams.contexts.processor import ContextProcessor
from streams.contexts.rebuild import rebuild_offsets
from streams.contexts.restore import topic_ids
from streams.contexts.row_store import RowStore
from streams.errors import OffsetsLost, RowsThrownAway
from streams.kafka.crash_points import EXIT_STATUS
from streams.kafka.partitions import partition_of
from streams.kafka.processor import OffsetsToCommit, Processed
from streams.kafka.records import Place
from streams.kafka.sending import send_all
from streams.operate.republish import republish_record
from tests.kit.children.context_stage import REFUSED
from tests.kit.data.events import activity, ago, line, post_created, post_deleted
from tests.kit.data.shuffled_events import ShuffledEvents, slices
from tests.kit.kafka.groups import until_workers_share
from tests.kit.kafka.stages import ContextStageSetup
from tests.kit.kafka.topics import Sender, all_places, read_topic
from tests.kit.running import RecordedHeartbeat, frozen, in_thread
from tests.kit.waiting import until

pytestmark = pytest.mark.broker

POINTS = ("begun", "outputs-sent", "offsets-sent", "committed", "rows-written")


def like(member_id: str, post_id: str, seconds: float = 1, action: str = "like") -> dict[str, Any]:
    """An hour ago, and so many seconds later."""
    return activity(member_id, post_id, action, at=ago(hours=1, seconds=-seconds))


def test_events_become_contexts(contexts: ContextStageSetup) -> None:
    contexts.send(post_created("p1", "hello"), like("m", "p1"), like("m", "later"), like("m", "p1", 2, "view"))
    heartbeat = RecordedHeartbeat()
    with in_thread(contexts.stage(heartbeat=heartbeat).run):
        contexts.until_done()
        heartbeat.until_turned()
        assert heartbeat.owned == all_places(contexts.kafka, *stages.CONTEXTS.topics)
        contexts.send(post_created("later", "here now"), post_deleted("never seen"))
        contexts.flush()
    assert heartbeat.owned == frozenset(), "a worker that has stopped owns no partition"
    posts, members = contexts.posts(), contexts.members()
    assert posts["p1"][-1].counts == {"like": 1, "view": 1}
    assert posts["never seen"][-1].deleted
    assert [(entry.post_id, entry.text) for entry in members["m"][-1].history] == [
        ("p1", "hello"),
        ("later", "here now"),
    ]
    assert [entry.action for entry in members["author"][-1].history] == ["wrote", "wrote"]
    # Freshness is measured from the event; a delayed publication says nothing about it.
    first, *_, last = (m for m in read_topic(contexts.kafka, topics.POST_CONTEXTS) if m.key() == b"p1")
    (sent,) = (m for m in read_topic(contexts.kafka, topics.POSTS) if m.key() == b"p1")
    assert first.headers() == [(topics.ORIGIN_HEADER, str(sent.timestamp()[1]).encode())]
    assert last.headers() is None


def test_a_bad_record_is_a_dead_letter_and_its_neighbours_go_on(contexts: ContextStageSetup) -> None:
    contexts.sender.send(topics.POSTS, [("p1", b"{"), ("p2", None), ("other", line(post_created("p3")))])
    contexts.sender.send(topics.ACTIVITY_BY_POST, [("p1", b"junk")])
    contexts.send(post_created("p1"))
    with in_thread(contexts.stage().run):
        contexts.until_done()
    letters = {m.key(): _cause(m) for m in read_topic(contexts.kafka, topics.DEAD_LETTERS)}
    assert set(letters) == {b"p1", b"p2", b"other"}
    assert letters[b"p2"].cause.startswith("the value is null")
    assert {(letter.stage, letter.topic) for letter in letters.values()} >= {("contexts", topics.POSTS)}
    assert list(contexts.posts()) == ["p1"]


def test_too_much_activity_before_its_post_is_a_dead_letter_that_can_be_sent_again(contexts: ContextStageSetup) -> None:
    contexts.send(like("m", "p1", 1), like("m", "p1", 2))
    with in_thread(contexts.stage(ContextRules(waiting_actions=1)).run):
        contexts.until_done()
        (letter,) = read_topic(contexts.kafka, topics.DEAD_LETTERS)
        cause = _cause(letter)
        assert (cause.topic, cause.stage) == (topics.ACTIVITY, "contexts")
        contexts.send(post_created("p1"))
        contexts.until_done()
        contexts.sender.send(topics.ACTIVITY, [((letter.key() or b"").decode(), letter.value())])
        contexts.flush()
    assert contexts.posts()["p1"][-1].counts == {"like": 2}
    assert len(contexts.members()["m"][-1].history) == 2


def test_republish_gives_the_same_at_the_next_revision(contexts: ContextStageSetup) -> None:
    contexts.send(post_created("p1", "hello"))
    with in_thread(contexts.stage().run):
        contexts.until_done()
        send_all(contexts.kafka, [republish_record(b"p1"), republish_record(b"nobody")])
        contexts.until_done()
    first, second = contexts.posts()["p1"]
    assert (first.revision, second.revision) == (1, 2)
    assert (first.text, first.as_of_us) == (second.text, second.as_of_us)
    assert set(contexts.posts()) == {"p1"}


def test_a_flush_publishes_more_than_one_batch_of_delayed_contexts(contexts: ContextStageSetup) -> None:
    contexts.send(*(post_created(f"p{n}") for n in range(60)))
    with in_thread(contexts.stage(batch_records=10).run):
        contexts.until_done()
        contexts.send(*(like("m", f"p{n}", n, "view") for n in range(60)))
        contexts.flush()
    published = contexts.posts()
    assert {len(published[f"p{n}"]) for n in range(60)} == {2}
    assert {published[f"p{n}"][-1].counts["view"] for n in range(60)} == {1}


def test_what_is_due_is_published_by_itself_also_after_a_restart(contexts: ContextStageSetup) -> None:
    rules = ContextRules(counts_window_s=3.0)
    contexts.send(post_created("p1"))
    with in_thread(contexts.stage(rules).run):
        contexts.until_done()
        contexts.send(like("m", "p1", 1, "view"))
        contexts.until_done()
    assert len(contexts.posts()["p1"]) == 1
    with in_thread(contexts.stage(rules).run):
        until(lambda: len(contexts.posts()["p1"]) == 2, "the counts to be published", every_s=0.2)
    assert contexts.posts()["p1"][-1].counts == {"view": 1}


def test_a_batch_that_is_too_much_for_one_transaction_becomes_several(
    contexts: ContextStageSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[tuple[int, int]] = []
    process = ContextProcessor.process

    def watched(self: ContextProcessor, records: Sequence[Message], offsets_to_commit: OffsetsToCommit) -> Processed:
        done = process(self, records, offsets_to_commit)
        parts.append((done.num_records, len(records)))
        return done

    monkeypatch.setattr(ContextProcessor, "process", watched)
    monkeypatch.setattr(contexts_processor, "MAX_OUTPUTS", 5)
    events = ShuffledEvents(seed=4, num_actions=300)
    contexts.send_all(events.sent())
    with in_thread(contexts.stage(batch_records=1_000).run):
        contexts.check(events)
    assert sum(done < all_of_it for done, all_of_it in parts) > 10


@pytest.mark.timeout(240)
def test_two_deaths_at_every_crash_point_lose_and_repeat_nothing(contexts: ContextStageSetup) -> None:
    """The second on the first pass after the restart, with what the first left behind."""
    events = ShuffledEvents()
    parts = slices(events.sent(), len(POINTS) + 1)
    for number, name in enumerate(POINTS):
        contexts.send_all(next(parts))
        for passes in (3, 1):
            with contexts.worker(crash=f"transaction.{name}:{passes}") as dying:
                assert dying.wait(60) == EXIT_STATUS, name
        if number % 2:
            # The rows are only a copy.
            shutil.rmtree(contexts.folder / "rows")
    contexts.send_all(next(parts))
    with contexts.worker():
        contexts.check(events)


@pytest.mark.timeout(240)
def test_workers_that_join_leave_freeze_and_die_lose_and_repeat_nothing(contexts: ContextStageSetup) -> None:
    events = ShuffledEvents(seed=2, num_actions=900)
    parts = slices(events.sent(), 6)
    with contexts.worker("a") as first:
        contexts.send_all(next(parts))
        with contexts.worker("b") as second:
            contexts.send_all(next(parts))
            second.send_signal(signal.SIGTERM)
            assert second.wait(30) == 0
        with contexts.worker("b"):
            contexts.send_all(next(parts))
            first.kill()
            contexts.send_all(next(parts))
            with contexts.worker("a") as worker:
                _until_members(contexts, 2)
                with frozen(worker.pid):
                    contexts.send_all(next(parts))
                    # Its partitions have moved once all is done without it.
                    contexts.until_done()
                contexts.send_all(next(parts))
                contexts.check(events)


def test_a_producer_with_another_partitioner_changes_nothing(contexts: ContextStageSetup) -> None:
    """librdkafka's own is the likeliest mistake."""
    contexts.sender = Sender(contexts.kafka, partitioner="consistent_random")
    events = ShuffledEvents(seed=11, num_actions=200)
    contexts.send_all(events.sent())
    with capture_logs() as log_lines, in_thread(contexts.stage().run):
        contexts.check(events)
        before = contexts.posts() | contexts.members()
        contexts.sender.send(topics.REPUBLISH, [(entity_id, None) for entity_id in before])
        contexts.until_done()
    for entity_id, published in (contexts.posts() | contexts.members()).items():
        assert len(published) == len(before[entity_id]) + 1, entity_id
    warned = [line["topic"] for line in log_lines if "set partitioner=murmur2_random" in line["event"]]
    assert sorted(warned) == sorted([*topics.INPUTS, topics.REPUBLISH])


def test_a_damaged_row_is_restored_from_the_changelog(contexts: ContextStageSetup) -> None:
    events = ShuffledEvents(seed=9, num_members=2, num_actions=200)
    early, late = slices(events.sent(), 2)
    contexts.send_all(early)
    with in_thread(contexts.stage().run):
        contexts.until_done()
    _take_out_pieces_of_histories(contexts)
    contexts.send_all(late)
    with pytest.raises(RowsThrownAway, match="'m0' is missing"):
        contexts.stage().run(Event())
    with in_thread(contexts.stage().run):
        contexts.check(events)


def test_rows_without_offsets_are_refused_and_mended(contexts: ContextStageSetup) -> None:
    events = ShuffledEvents(seed=3, num_actions=100)
    early, late = slices(events.sent(), 2)
    contexts.send_all(early)
    with contexts.worker():
        contexts.until_done()
    _lose_group(contexts)
    with contexts.worker() as refused:
        assert refused.wait(30) == REFUSED
        assert refused.stdout is not None
        assert "nearline contexts rebuild" in refused.stdout.read()
    with pytest.raises(OffsetsLost, match="count events twice"):
        contexts.stage().run(Event())
    assert rebuild_offsets(contexts.kafka)
    assert rebuild_offsets(contexts.kafka) == {}
    contexts.send_all(late)
    with contexts.worker():
        contexts.check(events)


def _cause(letter: Message) -> DeadLetterCause:
    return from_headers(cast(Headers, letter.headers()))


def _take_out_pieces_of_histories(contexts: ContextStageSetup) -> None:
    rows = contexts.folder / "rows" / "0"
    changelog_id = topic_ids(contexts.kafka, [topics.MEMBER_CHANGELOG])[topics.MEMBER_CHANGELOG]
    place = Place(topics.MEMBER_CHANGELOG, partition_of(b"m0", contexts.kafka.partitions))
    table = RowStore(rows, place, changelog_id)
    pieces = [key for key, _ in table.scan(b"hm0")]
    assert pieces
    table.write(dict.fromkeys(pieces), table.position)
    table.close()


def _lose_group(contexts: ContextStageSetup) -> None:
    def deleted() -> bool:
        try:
            contexts.broker.admin.delete_consumer_groups([topics.CONTEXTS_GROUP])[topics.CONTEXTS_GROUP].result(20)
        except Exception:
            return False
        return True

    until(deleted, "the killed worker to leave the group")


def _until_members(contexts: ContextStageSetup, number: int) -> None:
    until_workers_share(contexts.kafka, topics.CONTEXTS_GROUP, number)
