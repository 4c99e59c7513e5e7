from datetime import timedelta

import pytest

from schemas.canaries import CANARY_AUTHOR, canary_id
from schemas.events import MemberEvent
from schemas.ids import MemberId, PostId
from schemas.times import to_micros
from tests.kit.data.events import activity, post_created, post_deleted, post_updated
from tests.kit.data.training_events import START, events, feed_of
from trainer.data.replay import replay_until
from trainer.errors import BadEvents
from trainer.evaluation.task import evaluation_task


def post(post_id: str, hour: int, author: str = "a", text: str = "words") -> dict[str, str]:
    return post_created(post_id, text, author_id=author, at=START + timedelta(hours=hour))


def like(member: str, post_id: str, hour: float) -> dict[str, str]:
    return activity(member, post_id, "like", at=START + timedelta(hours=hour))


def test_the_cut_is_the_time_of_the_first_action_held_out() -> None:
    feed = feed_of([post("p", 0), *(like("m", "p", hour) for hour in range(1, 101))])
    assert feed.cut(0.15) == to_micros(START + timedelta(hours=86))
    assert feed.cut(0.0) > feed.positives[-1].at_us


def test_what_is_no_positive_action_moves_no_cut() -> None:
    looks = [activity("m", "p", "impression", at=START + timedelta(hours=200 + number)) for number in range(500)]
    dwells = [activity("m", "p", "dwell", at=START + timedelta(hours=300), dwell_ms=ms) for ms in (9_999, 10_000)]
    feed = feed_of([post("p", 0), *(like("m", "p", hour) for hour in range(1, 100)), *looks, *dwells])
    assert len(feed.positives) == 100
    assert feed.cut(0.5) == to_micros(START + timedelta(hours=51))


def test_a_context_holds_nothing_of_the_cut_or_later() -> None:
    recorded = [post("p1", 0), post("own", 1, author="m"), post("p2", 2), like("m", "p1", 3), like("m", "p2", 4)]
    feed = feed_of(recorded)
    cut_us = to_micros(START + timedelta(hours=4))
    both = replay_until(feed, cut_us).context("m", cut_us)
    assert [(entry.post_id, entry.action) for entry in both.history] == [("own", "wrote"), ("p1", "like")]
    acted = replay_until(feed, cut_us, wrote=False).context("m", cut_us)
    assert [entry.post_id for entry in acted.history] == ["p1"]


def test_nothing_is_learned_of_canaries() -> None:
    canary = canary_id("node", 0)
    feed = feed_of([post("p", 0), post(canary, 1, author=CANARY_AUTHOR), post_deleted(canary, at=START)])
    assert [event.event.post_id for event in feed.events if not isinstance(event.event, MemberEvent)] == ["p"]


def test_an_action_that_is_recorded_before_its_post_counts() -> None:
    feed = feed_of([like("m", "p", 1), post("p", 0)])
    assert len(feed.positives) == 1


def test_of_one_moment_the_order_given_is_kept() -> None:
    recorded = [post(name, 0) for name in "abcdef"] + [like("m", name, 1) for name in "fbdace"]
    feed = feed_of(recorded)
    assert [action.post_id for action in feed.positives] == list("fbdace")
    assert list(feed.posts) == list("abcdef")


def test_targets_are_fresh_posts_and_members_have_five_actions_before() -> None:
    old = [post(f"old{number}", number) for number in range(6)]
    before = [like("m", f"old{number}", 10 + number) for number in range(5)] + [like("few", "old1", 12)]
    fresh = [post("fresh1", 20), post("fresh2", 21), post("nobody's", 22)]
    after = [like("m", "fresh2", 23), like("m", "fresh2", 24), like("m", "old5", 24), like("few", "fresh1", 25)]
    feed = feed_of([*old, *before, *fresh, *after])
    task = evaluation_task(feed, to_micros(START + timedelta(hours=20)))
    assert [candidate.post_id for candidate in task.candidates] == ["fresh1", "fresh2", "nobody's"]
    assert task.targets == {"few": [0], "m": [1]}
    assert task.members == ["m"]
    assert task.acted[MemberId("few")] == [PostId("old1")]


def test_a_feed_with_nothing_to_measure_is_refused() -> None:
    with pytest.raises(BadEvents, match="no positive action"):
        feed_of([post("p", 0)]).cut(0.15)
    feed = feed_of([post("p", 0), like("m", "p", 1)])
    with pytest.raises(BadEvents, match="give more events"):
        evaluation_task(feed, feed.cut(0.15))


def test_a_late_update_does_not_make_an_old_post_fresh() -> None:
    update = post_updated(post("old1", 1), at=START + timedelta(hours=390))
    feed = feed_of([*events(), {**update, "post_id": "p5"}])
    assert PostId("p5") not in {candidate.post_id for candidate in evaluation_task(feed, feed.cut(0.15)).candidates}
