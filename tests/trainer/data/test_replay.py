"""What was published at a moment, by the context stage's own functions."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from schemas.contexts import MemberContext
from schemas.ids import Micros
from schemas.times import to_micros
from tests.kit.data.events import activity, member_deleted, member_updated, post_created
from tests.kit.data.training_events import START, events, feed_of
from trainer.data.replay import PublishingReplay, replay_until

FOREVER = Micros(2**60)


def at(seconds: float) -> Any:
    return START + timedelta(seconds=seconds)


def us(seconds: float) -> Micros:
    return to_micros(at(seconds))


def replayed(*recorded: dict[str, Any], rules: Any = None) -> PublishingReplay:
    feed = feed_of(recorded)
    replay = PublishingReplay(rules or feed.rules)
    for timed in feed.events:
        replay.apply(timed)
    return replay


def likes(replay: PublishingReplay) -> int:
    return replay.post_contexts["p"].counts.get("like", 0)


def history(replay: PublishingReplay, member_id: str = "m") -> list[str]:
    row = replay.published_member(member_id)
    return [] if row is None else [str(entry.post_id) for entry in replay.member_context(row).history]


def test_counts_are_as_they_were_published_last() -> None:
    """One enters a new bucket and is published at once; the next ones wait until a minute is over."""
    post = post_created("p", at=at(0))
    replay = replayed(post, *(activity(f"m{number}", "p", at=at(100 + number)) for number in range(3)))
    assert likes(replay) == 1
    assert replay.posts["p"].state.counts["like"] == 3
    replay.publish_due(us(159))
    assert likes(replay) == 1
    replay.publish_due(us(160))
    assert likes(replay) == 3
    assert replay.post_contexts["p"].as_of_us == us(102)


def test_a_history_is_as_it_was_published_last() -> None:
    posts = [post_created(name, at=at(0)) for name in "pqr"]
    replay = replayed(*posts, *(activity("m", name, at=at(100 + number)) for number, name in enumerate("pqr")))
    assert history(replay) == ["p"], "what comes within ten seconds is published together"
    replay.publish_due(us(110))
    assert history(replay) == ["p", "q", "r"]


def test_what_is_due_is_published_before_the_next_event() -> None:
    post = post_created("p", at=at(0))
    early = [activity(f"m{number}", "p", at=at(100 + number)) for number in range(3)]
    replay = replayed(post, *early, activity("x", "p", "view", at=at(500)))
    assert (likes(replay), replay.post_contexts["p"].counts.get("view")) == (3, 1)


def test_when_all_is_published_it_is_what_was_known() -> None:
    recorded = [*events(60), *(member_updated(f"m{number}", headline="h", at=at(9)) for number in range(24))]
    feed = feed_of(recorded)
    known, replay = replay_until(feed, FOREVER), replayed(*recorded)
    replay.publish_due(FOREVER)

    def prompt_fields(contexts: Iterable[MemberContext]) -> list[Any]:
        return [(c.member_id, c.headline, c.history, c.as_of_us) for c in contexts]

    members = sorted(known.members)
    published = [replay.member_context(row) for name in members if (row := replay.published_member(name)) is not None]
    assert prompt_fields(published) == prompt_fields(known.context(name, FOREVER) for name in members)
    assert {post_id: row.state.counts for post_id, row in known.posts.items()} == {
        post_id: context.counts for post_id, context in replay.post_contexts.items()
    }


def test_what_waits_by_a_deleted_member_is_erased() -> None:
    replay = replayed(
        activity("m", "p", at=at(0)), member_deleted("m", at=at(10)), post_created("p", author_id="a", at=at(20))
    )
    assert likes(replay) == 0


def test_what_waited_too_long_for_its_post_is_not_counted() -> None:
    replay = replayed(activity("m", "p", at=at(0)), post_created("p", author_id="a", at=at(8 * 24 * 3600)))
    assert (likes(replay), history(replay)) == (0, [])
