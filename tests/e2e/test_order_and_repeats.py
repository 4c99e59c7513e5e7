"""Any number of events of one post, in any order and repeated, end in the state of the newest one, in both tiers."""

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nearline.pipeline import Pipeline
from schemas.contexts import PostContext, decode_post_context
from schemas.topics import POST_CONTEXTS
from streams.settings import KafkaSettings
from tests.e2e.conftest import Running
from tests.kit.data.event_order import newest
from tests.kit.data.events import ago, post_created, post_deleted, post_updated, rfc3339
from tests.kit.kafka.topics import read_topic

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

POSTS = 30
TIMES = 4
"""So few that events of equal time meet."""


def test_shuffled_and_repeated_events_end_in_the_newest(pipeline: Pipeline, unique: Callable[[str], str]) -> None:
    rng = random.Random(5)
    histories = [_history(unique("order"), rng) for _ in range(POSTS)]
    events = [event for history in histories for event in history] * 2
    rng.shuffle(events)
    pipeline.ingest(events)
    pipeline.wait()
    pipeline.ingest(rng.sample(events, len(events)))
    pipeline.wait()
    live = {tier: _dump(pipeline, tier) for tier in ("cold", "hot")}
    for history in histories:
        winner = _newest(history)
        post_id = winner["post_id"]
        lives = winner["type"] != "post.deleted"
        assert (post_id in live["cold"]) == lives, f"cold tier after {history}"
        assert (post_id in live["hot"]) == lives, f"hot tier after {history}"
        if lives:
            assert live["cold"][post_id]["author_id"] == winner["author_id"]
    contexts = _contexts(pipeline)
    for winner in map(_newest, histories):
        context = contexts[winner["post_id"]]
        assert context.deleted == (winner["type"] == "post.deleted")
        assert context.text == winner.get("text", ""), winner


def test_a_file_sent_twice_brings_nothing_back(running: Running) -> None:
    pipeline = running.pipeline
    before = {tier: set(_dump(pipeline, tier)) for tier in ("cold", "hot")}
    assert before["cold"] >= set(running.world.truth.subject_of) - set(running.world.truth.deleted_posts)
    assert not before["cold"] & set(running.world.truth.deleted_posts)
    pipeline.run("ingest", running.file)
    pipeline.wait()
    after = {tier: set(_dump(pipeline, tier)) for tier in ("cold", "hot")}
    assert after["cold"] == before["cold"]
    assert after["hot"] <= before["cold"], "posts whose counts grew come into the hot tier again; no deleted one does"
    for member_id in running.world.truth.deleted_members:
        assert pipeline.ask("get", "member", member_id)["cold"]["deleted"] is True


def test_a_create_after_the_delete_brings_the_post_back(pipeline: Pipeline, unique: Callable[[str], str]) -> None:
    post_id = unique("back")
    first, gone, again = (ago(minutes=minutes) for minutes in (3, 2, 1))
    pipeline.ingest([post_created(post_id, "first", at=first), post_deleted(post_id, at=gone)])
    pipeline.wait()
    assert pipeline.ask("get", "post", post_id)["cold"]["deleted"] is True
    pipeline.ingest([post_created(post_id, "again", at=again)])
    pipeline.wait()
    answer = pipeline.ask("get", "post", post_id)
    assert answer["context"]["text"] == "again"
    assert answer["cold"]["deleted"] is False
    assert answer["hot"]["deleted"] is False


def _history(post_id: str, rng: random.Random) -> list[dict[str, Any]]:
    """Some events of one post at few different times; half of the posts are some days old."""
    base = timedelta(days=3) if rng.random() < 0.5 else timedelta(hours=3)
    times = [rfc3339(datetime.now(UTC) - base + timedelta(minutes=minute)) for minute in range(TIMES)]
    first = post_created(post_id, f"{post_id} as created", author_id="a0", at=times[0])
    history = [first]
    for number in range(rng.randint(1, 5)):
        at = rng.choice(times)
        if rng.random() < 0.3:
            history.append(post_deleted(post_id, at=at))
        else:
            text = f"{post_id} as changed, {number}"
            history.append(post_updated(first, text, at=at, author_id=f"a{number}"))
    return history


def _newest(history: list[dict[str, Any]]) -> dict[str, str]:
    """Of the bodies as they were sent: `ingest` sends a line as it is."""
    return newest([json.dumps(event).encode() for event in history])


def _contexts(pipeline: Pipeline) -> dict[str, PostContext]:
    """The newest of every post. The vectors are in the test of one truth."""
    kafka = KafkaSettings(bootstrap_servers=pipeline.instance.bootstrap_servers)
    contexts = [decode_post_context(record.value() or b"") for record in read_topic(kafka, POST_CONTEXTS)]
    return {context.post_id: context for context in sorted(contexts, key=lambda context: context.revision)}


def _dump(pipeline: Pipeline, tier: str) -> dict[str, Any]:
    return {line["post_id"]: line for line in pipeline.lines("dump", "posts", "--tier", tier)}
