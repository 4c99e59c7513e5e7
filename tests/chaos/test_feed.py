"""The adversary's feed, and the few lines that say what must come of it."""

import json
from datetime import UTC, datetime

from nearline.chaos.feed import Feed, expected_end
from schemas.events import parse_event

START = datetime(2026, 1, 5, tzinfo=UTC)


def test_the_same_seed_gives_the_same_events_and_all_of_them_are_good() -> None:
    first, second = Feed(3, START), Feed(3, START)
    events = first.take(1_500)
    assert events == second.take(1_500)
    assert Feed(4, START).take(1_500) != events
    assert {event["type"] for event in events} == {"post.created", "post.updated", "post.deleted", "activity"}
    for event in events:
        assert parse_event(_line(event)) is not None


def test_it_makes_trouble() -> None:
    feed = Feed(1, START)
    feed.take(3_000)
    posts = [event for event in feed.events if event["type"] != "activity"]
    lines = [_line(event) for event in posts]
    assert len(set(lines)) < len(lines), "repeats"
    created = {event["post_id"]: place for place, event in reversed(list(enumerate(feed.events))) if "text" in event}
    early = [
        e for place, e in enumerate(feed.events) if e["type"] == "activity" and created.get(e["post_id"], 0) > place
    ]
    assert early, "activity before its post"
    end = expected_end(feed.events)
    assert end.deleted
    last = {event["post_id"]: event["type"] for event in posts}
    assert any(last[post_id] != "post.deleted" for post_id in end.deleted), "a stale repeat after a delete"


def test_the_newest_event_wins_whatever_the_order_of_sending() -> None:
    created = {"type": "post.created", "post_id": "p", "text": "old", "created_at": "2026-01-05T10:00:00Z"}
    updated = {**created, "type": "post.updated", "text": "new", "at": "2026-01-05T11:00:00Z"}
    deleted = {"type": "post.deleted", "post_id": "p", "at": "2026-01-05T12:00:00Z"}
    back = {**updated, "at": "2026-01-05T13:00:00Z"}
    assert expected_end([updated, created]).live == {"p": updated}
    assert expected_end([deleted, updated, created]) == ({}, {"p"})
    assert expected_end([back, deleted, created]).live == {"p": back}


def _line(event: object) -> bytes:
    return json.dumps(event).encode()
