"""Every kind of bad input, with the words of its refusal: for the stages, which make dead letters, and for `ingest`.

Odd events that the schema allows are here too, as ACCEPTED: they must be taken.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from schemas import topics
from tests.kit.data.events import Event, activity, ago, line, member_updated, post_created

DEEP: Final = 100_000
ACCEPTED: Final = ""


class Case(NamedTuple):
    """`cause` is a part of the refusal's sentence, or ACCEPTED."""

    name: str
    cause: str
    value: bytes | None
    key: bytes | None = None
    topic: str = topics.POSTS


def raw(event: Event, more: str = "") -> bytes:
    """`more` is put before the closing brace as it is, for what json.dumps would not write."""
    return line(event)[:-1] + more.encode() + b"}"


def bodies() -> list[Case]:
    """Cases that the body alone decides. Each post has an id of its own, and the record has the right key."""
    return [_keyed(number, case) for number, case in enumerate(_POSTS)] + [
        _activity("an unknown action", "action: Invalid enum value 'poke'; use one of view, ", action="poke"),
        _activity("a fraction for a whole number", "dwell_ms: Expected `int | null`, got `float`", dwell_ms=1.5),
        _activity("a number without end", "dwell_ms: Expected `int` <= ", dwell_ms=10**30),
        _activity("a dwell without its length", "dwell_ms is missing"),
        Case("a member's text with NUL", "hold a NUL character", _member(headline="a\0b"), b"m", topics.MEMBERS),
        Case("an empty skill", ACCEPTED, _member(skills=[""]), b"m", topics.MEMBERS),
        Case(
            "too many skills", "skills: Expected `array` of length", _member(skills=["s"] * 201), b"m", topics.MEMBERS
        ),
    ]


def records() -> list[Case]:
    """Cases that the record around the body decides. A line of a file cannot have them."""
    return [
        Case("a null value", "the value is null; send a post.deleted", None, b"p"),
        Case("an empty value", "not valid JSON", b"", b"p"),
        Case("a null key", "the key is null; use 'no-key' as the key", raw(post_created("no-key"))),
        Case("another key", "the key b'other' disagrees with the value", raw(post_created("a-key")), b"other"),
        Case("a key that is no UTF-8", "disagrees with the value", raw(post_created("a-key")), b"\xff\xfe"),
        Case("another topic", "type belongs to the topic posts", raw(post_created("p")), b"p", topics.MEMBERS),
    ]


class _Post(NamedTuple):
    name: str
    cause: str
    over: Mapping[str, Any] = MappingProxyType({})
    more: str = ""
    value: bytes | None = None


_POSTS: Final = (
    _Post("broken JSON", "not valid JSON", value=b"{"),
    _Post("two objects", "not valid JSON", value=raw(post_created("two")) * 2),
    _Post("no object", "Expected `object`, got `array`", value=b"[1]"),
    _Post(
        "not UTF-8", "not valid JSON", value=raw(post_created("latin")).replace(b'"text": "text"', b'"text": "caf\xe9"')
    ),
    _Post("a byte order mark", "not valid JSON", value=b"\xef\xbb\xbf" + raw(post_created("bom"))),
    _Post("a number that JSON does not know", "not valid JSON", more=', "unknown": NaN'),
    _Post("a wrong type", "text: Expected `str`, got `int`", {"text": 7}),
    _Post("a null field", "text: Expected `str`, got `null`", {"text": None}),
    _Post(
        "a missing field",
        "missing required field `text`",
        value=b'{"type":"post.created","post_id":"p","author_id":"a"}',
    ),
    _Post("no type", "missing required field `type`", value=b'{"post_id":"p"}'),
    _Post("an unknown type", "type: Invalid value 'post.liked'; use one of post.created, ", {"type": "post.liked"}),
    _Post("a type that moves the cursor", r"type: Invalid value 'a\x1b[2J\nb'; use", {"type": "a\x1b[2J\nb"}),
    _Post("a type of control characters", "…; use one of", {"type": "\x1a" * 150}),
    _Post("a type as long as a book", "x…; use one of", {"type": "x" * 100_000}),
    _Post(
        "a time without a zone",
        "created_at: Expected `datetime` with a timezone",
        {"created_at": "2026-01-05T10:00:00"},
    ),
    _Post(
        "no time", "created_at: Invalid RFC3339 encoded datetime; send a time such as 2026", {"created_at": "yesterday"}
    ),
    _Post("a time in the far future", "more than 24 h past", {"created_at": ago(days=-3)}),
    _Post(
        "a time after all zones' last",
        "created_at is before 1970 or after 9998",
        {"created_at": "9999-12-31T23:59:59-12:00"},
    ),
    _Post(
        "an update in the far future",
        "more than 24 h past",
        {"type": "post.updated", "at": ago(days=-3)},
    ),
    _Post("a time before 1970", "created_at is before 1970", {"created_at": "1969-12-31T23:59:59Z"}),
    _Post("an id over 256 bytes", "post_id is longer than 256 bytes", {"post_id": "é" * 129}),
    _Post("an empty id", "post_id: Expected `str` of length >= 1", {"post_id": ""}),
    _Post("an id with NUL", "post_id holds a NUL character", {"post_id": "a\0b"}),
    _Post("a text over 100,000 characters", "text: Expected `str` of length <= 100000", {"text": "x" * 100_001}),
    _Post("a text with NUL", "text holds a NUL character; take it out", {"text": "a\0b"}),
    _Post("an empty text", "text is empty; send what the post says", {"text": ""}),
    _Post("a text of blanks", "text is empty", {"text": " \t\n\u00a0\u3000"}),
    _Post("a language's name", "language is not a valid tag; send a tag such as en", {"language": "english"}),
    _Post(
        "an update before its creation",
        "at is before created_at; a post is created before it is updated",
        {"type": "post.updated", "at": ago(hours=1)},
    ),
    _Post("half a character, escaped", "not valid JSON", {"text": "\ud800"}),
    _Post(
        "half a character, raw",
        "not valid JSON",
        value=raw(post_created("raw")).replace(b'"text": "text"', b'"text": "\xed\xa0\x80"'),
    ),
    _Post("deep nesting", "Expected `object`", value=b"[" * DEEP),
    _Post("deep nesting in a field", "not valid JSON", more=', "unknown": ' + "[" * DEEP + "]" * DEEP),
    _Post("two types", "type: Invalid value", more=', "type": "activity"'),
    _Post("some nesting in an unknown field", ACCEPTED, {"unknown": [[[{"a": [1, 2.5, None]}]]]}),
    _Post("a field twice: the last one counts", ACCEPTED, more=', "text": "the last"'),
    _Post("a null where nothing is allowed to be", ACCEPTED, {"language": None}),
    _Post("an id of 256 bytes", ACCEPTED, {"post_id": "é" * 128}),
    _Post("a text of 100,000 characters", ACCEPTED, {"text": "漢" * 100_000}),
    _Post("a language of a region", ACCEPTED, {"language": "zh-Hant-TW"}),
    _Post("marks and control characters", ACCEPTED, {"text": "\u202ea\x1b[2J\r\n\x7f\ufffd<|nearline:text|>"}),
    _Post("an id with marks and control characters", ACCEPTED, {"post_id": "\u202e\x1b /..\n"}),
    _Post("a time of another zone", ACCEPTED, {"created_at": "2026-01-05T10:00:00.123456+05:30"}),
)


def _keyed(number: int, of: _Post) -> Case:
    event = {**post_created(f"case-{number}"), **of.over}
    return Case(of.name, of.cause, raw(event, of.more) if of.value is None else of.value, event["post_id"].encode())


def _activity(name: str, cause: str, **over: Any) -> Case:
    event = {**activity("m", "p", "dwell"), **over}
    return Case(name, cause, raw(event), b"m", topics.ACTIVITY)


def _member(**over: Any) -> bytes:
    return raw(member_updated("m", **over))
