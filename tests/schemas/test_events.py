"""Which records are accepted as events, and with which sentence others are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas import topics
from schemas.errors import BadRecord
from schemas.events import (
    EVENT_TYPES,
    Activity,
    MemberUpdated,
    PostCreated,
    PostUpdated,
    decode_event,
    event_order,
    event_topic,
    parse_event,
    unknown_fields,
)
from schemas.ids import Millis
from schemas.times import from_rfc3339
from tests.kit.data.events import activity, member_updated, post_created, post_deleted, post_updated

NOW_MS = Millis(from_rfc3339("2026-01-05T12:00:00Z") // 1000)
CREATED = post_created("p1", "hello", author_id="m7", at="2026-01-05T10:00:00Z", language="en")
UPDATED = post_updated(CREATED, "hello", at="2026-01-05T11:00:00Z")
DELETED = post_deleted("p1", at="2026-01-05T11:30:00Z")
MEMBER = member_updated("m9", skills=["a"], at="2026-01-05T09:00:00Z")
LIKE = activity("m9", "p1", at="2026-01-05T10:00:07Z")
NO_TAGS = [
    (event, name) for event in (CREATED, UPDATED, MEMBER) for name in ("english", "", "EN", "e", "en-", "en_GB", "en\n")
]


def body(event: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps({**event, **changes}).encode()


def without(event: dict[str, Any], field: str) -> bytes:
    return json.dumps({name: value for name, value in event.items() if name != field}).encode()


def test_every_type_is_read_and_knows_its_topic() -> None:
    assert [event_topic(parse_event(body(event))) for event in (CREATED, UPDATED, DELETED, MEMBER, LIKE)] == [
        topics.POSTS,
        topics.POSTS,
        topics.POSTS,
        topics.MEMBERS,
        topics.ACTIVITY,
    ]


def test_unknown_fields_are_kept_out() -> None:
    event = parse_event(body(CREATED, colour="red"))
    assert isinstance(event, PostCreated)
    assert not hasattr(event, "colour")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[1]", "Expected `object`"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "Expected `object`"),
        (body(CREATED, type="post.liked"), "type: Invalid value 'post.liked'"),
        (without(CREATED, "type"), "type"),
        (without(CREATED, "text"), "text"),
        (body(CREATED, text=7), "text: Expected `str`, got `int`"),
        (body(CREATED, text=None), "text: Expected `str`"),
        (body(CREATED, text="x" * 100_001), "text: Expected `str` of length <= 100000"),
        (body(CREATED, text="a\0b"), "text holds a NUL"),
        (body(CREATED, text=""), "text is empty; send what the post says"),
        (body(UPDATED, text=" \n\u3000"), "text is empty"),
        *(
            (body(event, language=name), "language is not a valid tag; send a tag such as en")
            for event, name in NO_TAGS
        ),
        (body(UPDATED, at="2026-01-05T10:59:59+01:00"), "at is before created_at"),
        (body(CREATED, post_id=""), "post_id: Expected `str` of length >= 1"),
        (body(CREATED, post_id="é" * 129), "post_id is longer than 256 bytes"),
        (body(CREATED, created_at="2026-01-05T10:00:00"), "created_at: Expected `datetime` with a timezone"),
        (body(CREATED, created_at="yesterday"), "created_at: Invalid RFC3339"),
        (body(CREATED, created_at="1969-12-31T23:59:59Z"), "created_at is before 1970"),
        (without(UPDATED, "at"), "at"),
        (body(LIKE, action="poke"), "action: Invalid enum value 'poke'"),
        (body(LIKE, action="dwell"), "dwell_ms is missing"),
        (body(LIKE, action="dwell", dwell_ms=-1), "dwell_ms: Expected `int` >= 0"),
        (body(CREATED).replace(b"hello", b"\\ud800"), "not valid JSON"),
    ],
)
def test_a_bad_body_is_one_sentence_that_names_the_field(raw: bytes, words: str) -> None:
    with pytest.raises(BadRecord, match=words.replace("`", "`")) as caught:
        parse_event(raw)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("topic", "key", "value", "words"),
    [
        ("posts", b"p1", None, "value is null"),
        ("posts", None, body(CREATED), "key is null"),
        ("posts", b"p2", body(CREATED), "disagrees"),
        ("members", b"p1", body(CREATED), "belongs to the topic posts"),
        ("posts", b"p1", body(CREATED, created_at="2026-01-06T12:00:01Z"), "more than 24 h past"),
        ("activity", b"p1", body(LIKE), "disagrees"),
    ],
)
def test_a_record_must_agree_with_its_topic_key_and_timestamp(
    topic: str, key: bytes | None, value: bytes | None, words: str
) -> None:
    with pytest.raises(BadRecord, match=words):
        decode_event(topic, key, value, NOW_MS)


@pytest.mark.parametrize("tag", [None, "en", "deu", "pt-BR", "zh-Hant-TW", "sl-rozaj-1994"])
def test_a_language_is_a_tag(tag: str | None) -> None:
    event = parse_event(body(MEMBER, language=tag))
    assert isinstance(event, MemberUpdated)
    assert event.language == tag


def test_a_post_may_be_updated_in_the_moment_of_its_creation() -> None:
    assert isinstance(parse_event(body(UPDATED, at=CREATED["created_at"])), PostUpdated)


def test_the_events_of_the_readme_are_events() -> None:
    readme = Path(__file__).parent.parent.parent / "README.md"
    lines = [line for line in readme.read_bytes().splitlines() if line.startswith(b'{"type"')]
    kinds = {type(event) for event in map(parse_event, lines)}
    assert kinds == set(EVENT_TYPES)
    assert not any(unknown_fields(parse_event(line), line) for line in lines)


def test_a_good_record_passes() -> None:
    assert isinstance(decode_event("activity", b"m9", body(LIKE), NOW_MS), Activity)
    late = body(CREATED, created_at="2026-01-06T11:59:59Z")
    assert isinstance(decode_event("posts", b"p1", late, NOW_MS), PostCreated)


def test_order_is_time_then_kind_then_digest() -> None:
    same_time = [
        body(CREATED),
        body(UPDATED, at=CREATED["created_at"]),
        body(DELETED, at=CREATED["created_at"]),
    ]
    orders = [event_order(parse_event(raw), raw) for raw in same_time]
    assert orders == sorted(orders)
    assert orders[0].at_us == from_rfc3339(CREATED["created_at"])
    twins = [body(UPDATED, text=text) for text in ("a", "b")]
    first, second = (event_order(parse_event(raw), raw) for raw in twins)
    assert first[:2] == second[:2]
    assert first.digest != second.digest


def test_zones_and_fractions_are_exact() -> None:
    event = parse_event(body(UPDATED, at="2026-01-05T12:00:00.123456+01:00"))
    assert isinstance(event, PostUpdated)
    assert event_order(event, b"").at_us == from_rfc3339("2026-01-05T11:00:00.123456Z")
