"""The adversary's feed, and the few lines that say what must come of it."""

from datetime import UTC, datetime, timedelta

from nearline.chaos.expected_state import Entry, Member, expected_state, time_us
from nearline.chaos.feed import Event, Feed
from schemas.events import parse_event
from tests.kit.data.events import activity, line, member_deleted, member_updated, post_created, post_deleted, rfc3339

START = datetime(2026, 1, 5, tzinfo=UTC)


def test_the_same_seed_gives_the_same_events_and_all_of_them_are_good() -> None:
    first, second = Feed(3, START), Feed(3, START)
    events = first.take(1_500)
    assert events == second.take(1_500)
    assert Feed(4, START).take(1_500) != events
    of_posts = {"post.created", "post.updated", "post.deleted"}
    assert {event["type"] for event in events} == {*of_posts, "member.updated", "member.deleted", "activity"}
    for event in events:
        assert parse_event(line(event)) is not None


def test_it_makes_trouble() -> None:
    feed = Feed(1, START)
    feed.take(3_000)
    posts = [event for event in feed.events if event["type"].startswith("post.")]
    lines = [line(event) for event in posts]
    assert len(set(lines)) < len(lines), "repeats"
    created = {event["post_id"]: place for place, event in reversed(list(enumerate(feed.events))) if "text" in event}
    early = [
        e for place, e in enumerate(feed.events) if e["type"] == "activity" and created.get(e["post_id"], 0) > place
    ]
    assert early, "activity before its post"
    end = expected_state(feed.events)
    assert end.deleted
    last = {event["post_id"]: event["type"] for event in posts}
    assert any(last[post_id] != "post.deleted" for post_id in end.deleted), "a stale repeat after a delete"
    left = {event["member_id"]: place for place, event in enumerate(feed.events) if event["type"] == "member.deleted"}
    assert left.keys() == end.departed
    acted = {e["member_id"]: place for place, e in enumerate(feed.events) if e["type"] == "activity"}
    assert any(acted.get(member_id, 0) > place for member_id, place in left.items()), "activity of who has left"


def test_the_newest_event_wins_whatever_the_order_of_sending() -> None:
    created = {"type": "post.created", "post_id": "p", "text": "old", "created_at": "2026-01-05T10:00:00Z"}
    updated = {**created, "type": "post.updated", "text": "new", "at": "2026-01-05T11:00:00Z"}
    deleted = {"type": "post.deleted", "post_id": "p", "at": "2026-01-05T12:00:00Z"}
    back = {**updated, "at": "2026-01-05T13:00:00Z"}
    assert expected_state([updated, created]).live == {"p": updated}
    end = expected_state([deleted, updated, created])
    assert (end.live, end.deleted) == ({}, {"p"})
    assert expected_state([back, deleted, created]).live == {"p": back}


def test_what_a_member_must_have() -> None:
    def post(post_id: str, at: int) -> Event:
        return post_created(post_id, author_id="w", at=_at(at))

    def acts(member_id: str, post_id: str, action: str, at: int) -> Event:
        return activity(member_id, post_id, action, at=_at(at))

    events = [
        *(post("stays", 1), post("goes", 2), post_deleted("goes", at=_at(3))),
        *(acts("m", "stays", "like", 4), acts("m", "goes", "click", 5), acts("m", "never-written", "like", 6)),
        *(acts("m", "goes", "hide", 7), acts("viewer", "stays", "view", 8), acts("gone", "stays", "like", 9)),
        member_updated("m", headline="baker", at=_at(10)),
        member_deleted("gone", at=_at(11)),
    ]
    end = expected_state(events)
    like = Entry(time_us(_at(4)), "stays", "like")
    wrote = Entry(time_us(_at(1)), "stays", "wrote")
    assert end.members["m"] == Member(events[-2], {like}, {like}, {"stays"}, {"stays", "goes"}, {"goes"})
    assert end.members["w"] == Member(None, {wrote}, {wrote}, set(), set(), set())
    assert not end.members["viewer"].must_be_there
    assert end.departed == {"gone"}
    assert "gone" not in end.members


def test_a_full_history_may_have_dropped_what_a_deleted_post_pushed_out() -> None:
    """49 live posts, then two that are deleted: whether the oldest is still there depends on when they were."""
    posts = [f"p{number:02}" for number in range(51)]
    created = [post_created(post_id, author_id="w", at=_at(0)) for post_id in posts]
    likes = [activity("m", post_id, at=_at(number)) for number, post_id in enumerate(posts)]
    deletes = [post_deleted(post_id, at=_at(99)) for post_id in posts[-2:]]
    member = expected_state([*created, *likes, *deletes]).members["m"]
    assert {entry.post_id for entry in member.possible} == set(posts[:49])
    assert {entry.post_id for entry in member.history} == set(posts[1:49])


def _at(second: int) -> str:
    return rfc3339(START + timedelta(seconds=second))
