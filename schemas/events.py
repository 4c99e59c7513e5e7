"""Input events: one JSON object per Kafka record, checked when it is read.

`decode_event` reads a record of an input topic. If it returns an event, that is safe to apply. If it raises, the error
is the cause of a dead letter. Knows nothing of what an event does.
"""

import hashlib
from datetime import datetime
from typing import Annotated, Final, Literal, NamedTuple, get_args

import msgspec
from msgspec import Meta, Struct

from schemas import topics
from schemas.canaries import CANARY_AUTHOR, RESERVED, is_reserved
from schemas.errors import BadRecord, NotJson
from schemas.ids import MAX_ID_BYTES, MAX_TEXT_CHARS, Micros, Millis
from schemas.languages import LANGUAGE, MAX_LANGUAGE_CHARS, is_language
from schemas.printable import printable
from schemas.times import END, EPOCH, to_micros

Action = Literal["view", "dwell", "click", "like", "comment", "share", "follow", "hide", "impression"]

MAX_FUTURE_US: Final = 24 * 3600 * 1_000_000
"""An event's time may be at most this far past its record's timestamp: clocks differ, but not by more than a day."""

_Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES)]
# `extra_json_schema` checks nothing: it only tells producers. `_Event` checks, and gives a clearer error.
_Text = Annotated[str, Meta(max_length=MAX_TEXT_CHARS, extra_json_schema={"minLength": 1, "pattern": r"\S"})]
_Short = Annotated[str, Meta(max_length=1_000)]
_Language = Annotated[str, Meta(max_length=MAX_LANGUAGE_CHARS, extra_json_schema={"pattern": LANGUAGE})]
_Time = Annotated[datetime, Meta(tz=True)]
_UpdateTime = Annotated[datetime, Meta(tz=True, description="not before created_at")]


class EventOrder(NamedTuple):
    """Orders the events of one entity: by event time, then created < updated < deleted, then by the SHA-256 of the
    record's value."""

    at_us: int
    rank: int
    digest: str


class _Event(Struct, frozen=True, tag_field="type"):
    """Holds the checks that several events have in common. If `__post_init__` raises ValueError, msgspec raises a
    ValidationError with its text."""

    def _check_ids(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            # The first comparison is quick, and enough for short ids: no character takes more than four bytes.
            if len(value) * 4 > MAX_ID_BYTES and len(value.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES:
                raise ValueError(f"{name} is longer than {MAX_ID_BYTES} bytes; use a shorter id")
            if "\0" in value:
                raise ValueError(f"{name} holds a NUL character; take it out")

    def _refuse_reserved(self, *names: str) -> None:
        for name in names:
            if is_reserved(getattr(self, name)):
                raise ValueError(f"{name} {RESERVED}")

    def _check_times(self, *names: str) -> None:
        for name in names:
            if not EPOCH <= getattr(self, name) < END:
                raise ValueError(f"{name} is before 1970 or after 9998; send the real time")

    def _check_language(self, language: str | None) -> None:
        if language is not None and not is_language(language):
            raise ValueError("language is not a valid tag; send a tag such as en or pt-BR, or leave it out")


class _PostBody(_Event, frozen=True):
    post_id: _Id
    author_id: _Id
    text: _Text
    created_at: _Time
    language: _Language | None = None

    def _check_body(self) -> None:
        self._check_ids("post_id", "author_id")
        # A canary has both: so nobody's own post gets out of everybody's sight by accident.
        if not (is_reserved(self.post_id) and self.author_id == CANARY_AUTHOR):
            self._refuse_reserved("post_id", "author_id")
        if "\0" in self.text:
            raise ValueError("text holds a NUL character; take it out")
        if not self.text.strip():
            raise ValueError("text is empty; send what the post says, or a post.deleted if nothing is left of it")
        self._check_language(self.language)


class PostCreated(_PostBody, frozen=True, tag="post.created"):
    def __post_init__(self) -> None:
        self._check_body()
        self._check_times("created_at")

    @property
    def event_time(self) -> datetime:
        return self.created_at


class PostUpdated(_PostBody, frozen=True, tag="post.updated", kw_only=True):
    at: _UpdateTime

    def __post_init__(self) -> None:
        self._check_body()
        self._check_times("created_at", "at")
        if self.at < self.created_at:
            raise ValueError("at is before created_at; a post is created before it is updated, send the real times")

    @property
    def event_time(self) -> datetime:
        return self.at


class PostDeleted(_Event, frozen=True, tag="post.deleted"):
    post_id: _Id
    at: _Time

    def __post_init__(self) -> None:
        self._check_ids("post_id")
        self._check_times("at")

    @property
    def event_time(self) -> datetime:
        return self.at


class MemberUpdated(_Event, frozen=True, tag="member.updated"):
    member_id: _Id
    at: _Time
    headline: _Short | None = None
    skills: Annotated[list[_Short], Meta(max_length=200)] = []
    industry: _Short | None = None
    language: _Language | None = None

    def __post_init__(self) -> None:
        self._check_ids("member_id")
        self._refuse_reserved("member_id")
        self._check_times("at")
        if any("\0" in text for text in (self.headline or "", self.industry or "", *self.skills)):
            raise ValueError("headline, industry or skills hold a NUL character; take it out")
        self._check_language(self.language)

    @property
    def event_time(self) -> datetime:
        return self.at


class MemberDeleted(_Event, frozen=True, tag="member.deleted"):
    member_id: _Id
    at: _Time

    def __post_init__(self) -> None:
        self._check_ids("member_id")
        self._refuse_reserved("member_id")
        self._check_times("at")

    @property
    def event_time(self) -> datetime:
        return self.at


class Activity(_Event, frozen=True, tag="activity"):
    member_id: _Id
    post_id: _Id
    action: Action
    at: _Time
    dwell_ms: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None

    def __post_init__(self) -> None:
        self._check_ids("member_id", "post_id")
        self._refuse_reserved("member_id", "post_id")
        self._check_times("at")
        if self.action == "dwell" and self.dwell_ms is None:
            raise ValueError("dwell_ms is missing; a dwell needs its length in milliseconds")

    @property
    def event_time(self) -> datetime:
        return self.at


PostEvent = PostCreated | PostUpdated | PostDeleted
MemberEvent = MemberUpdated | MemberDeleted
Event = PostEvent | MemberEvent | Activity

EVENT_TYPES: Final = (PostCreated, PostUpdated, PostDeleted, MemberUpdated, MemberDeleted, Activity)
_RANK: Final = {
    PostCreated: 0,
    PostUpdated: 1,
    PostDeleted: 2,
    MemberUpdated: 1,
    MemberDeleted: 2,
    Activity: 1,
}
_TOPIC: Final = {
    PostCreated: topics.POSTS,
    PostUpdated: topics.POSTS,
    PostDeleted: topics.POSTS,
    MemberUpdated: topics.MEMBERS,
    MemberDeleted: topics.MEMBERS,
    Activity: topics.ACTIVITY,
}
_SHOWN_CHARS: Final = 200
_TIME_HINT: Final = "send a time such as 2026-01-05T10:00:00Z"
_HINTS: Final = {
    "type": f"use one of {', '.join(str(kind.__struct_config__.tag) for kind in EVENT_TYPES)}",
    "action": f"use one of {', '.join(get_args(Action))}",
    "at": _TIME_HINT,
    "created_at": _TIME_HINT,
}
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def event_topic(event: Event) -> str:
    """The input topic for events of this type."""
    return _TOPIC[type(event)]


def event_key(event: Event) -> str:
    """The record's key: the post's id on `posts`, the member's id on `members` and `activity`."""
    return event.post_id if isinstance(event, PostEvent) else event.member_id


def is_canary(event: Event) -> bool:
    """Whether the monitor sent it, to see how long it takes. Nothing is to be counted or learned of it."""
    return isinstance(event, PostEvent) and is_reserved(event.post_id)


def event_time_us(event: Event) -> Micros:
    return to_micros(event.event_time)


def event_order(event: Event, value: bytes) -> EventOrder:
    """`value` is the record's value, exactly as it was sent."""
    return EventOrder(event_time_us(event), _RANK[type(event)], hashlib.sha256(value).hexdigest())


def parse_event(value: bytes) -> Event:
    """Reads one JSON object. Raises BadRecord."""
    try:
        return _decoder.decode(value)
    except msgspec.ValidationError as error:
        raise BadRecord(_sentence(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotJson(f"the record is not valid JSON ({error}); send one UTF-8 JSON object") from error


def unknown_fields(event: Event, value: bytes) -> list[str]:
    """The fields of `value` that this type of event does not have, safe to print. `event` was read from `value`."""
    try:
        names = _fields_decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # `parse_event` skips unknown fields without decoding them, so the value may still fail here.
        return []
    return [printable(name, _SHOWN_CHARS) for name in names if name != "type" and name not in event.__struct_fields__]


def decode_event(topic: str, key: bytes | None, value: bytes | None, timestamp_ms: Millis) -> Event:
    """Reads one record of an input topic, and checks that its topic, key and timestamp fit. Raises BadRecord."""
    if value is None:
        raise BadRecord("the value is null; send a post.deleted or member.deleted event instead")
    event = parse_event(value)
    if _TOPIC[type(event)] != topic:
        raise BadRecord(f"type belongs to the topic {_TOPIC[type(event)]}, not to {topic}; send it there")
    expected = event_key(event)
    if key is None:
        raise BadRecord(f"the key is null; use {expected!r} as the key")
    if key != expected.encode():
        raise BadRecord(f"the key {key[:64]!r} disagrees with the value; use {expected!r} as the key")
    if event_time_us(event) > timestamp_ms * 1000 + MAX_FUTURE_US:
        raise BadRecord("at or created_at is more than 24 h past the record's timestamp; send the real time")
    return event


def _sentence(error: msgspec.ValidationError) -> str:
    """msgspec says «Expected `str`, got `int` - at `$.post_id`». We put the field first and a hint last. The text may
    quote what was sent, so it is shortened, and control characters are escaped."""
    text, _, path = str(error).rpartition(" - at ")
    if not text:
        return printable(str(error), _SHOWN_CHARS)
    field = path.strip("`").removeprefix("$").lstrip(".")
    sentence = f"{field}: {printable(text, _SHOWN_CHARS)}" if field else printable(text, _SHOWN_CHARS)
    return f"{sentence}; {_HINTS[field]}" if field in _HINTS else sentence
