"""Random events, and random objects that look like events, for hypothesis."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

from hypothesis import strategies as st

from schemas.canaries import is_reserved
from schemas.events import Action, Activity, Event, MemberDeleted, MemberUpdated, PostCreated, PostDeleted, PostUpdated

_ZONES = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(datetime(1970, 1, 3), datetime(9998, 12, 29), timezones=_ZONES | st.just(UTC))
_CHARS = st.characters(codec="utf-8", exclude_characters="\0")
# Hypothesis also tries the strings that stand in our code.
IDS = st.text(_CHARS, min_size=1, max_size=64).filter(lambda entity_id: not is_reserved(entity_id))
TEXTS = st.text(_CHARS, max_size=80)
_LANGUAGES = st.none() | st.from_regex(r"[a-z]{2,3}(-[A-Za-z0-9]{1,8}){0,3}", fullmatch=True)
_BODY: dict[str, Any] = {
    "post_id": IDS,
    "author_id": IDS,
    "text": TEXTS.filter(str.strip),
    "created_at": TIMES,
    "language": _LANGUAGES,
}


def _updated(body: dict[str, Any], at: datetime) -> PostUpdated:
    created_at, at = sorted((body["created_at"], at))
    return PostUpdated(**{**body, "created_at": created_at}, at=at)


EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(PostCreated, **_BODY),
    st.builds(_updated, st.fixed_dictionaries(_BODY), TIMES),
    st.builds(PostDeleted, post_id=IDS, at=TIMES),
    st.builds(
        MemberUpdated,
        member_id=IDS,
        at=TIMES,
        headline=st.none() | TEXTS,
        skills=st.lists(TEXTS, max_size=4),
        industry=st.none() | TEXTS,
        language=_LANGUAGES,
    ),
    st.builds(MemberDeleted, member_id=IDS, at=TIMES),
    st.builds(
        Activity,
        member_id=IDS,
        post_id=IDS,
        action=st.sampled_from(get_args(Action)),
        at=TIMES,
        dwell_ms=st.integers(0, 2**63 - 1),
    ),
)

_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | TIMES.map(datetime.isoformat),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_NAMES = ("type", "post_id", "member_id", "author_id", "text", "created_at", "at", "action", "dwell_ms", "skills")
_TAGS = ("post.created", "post.updated", "post.deleted", "member.updated", "member.deleted", "activity")

NEARLY_EVENTS = st.fixed_dictionaries({}, optional=dict.fromkeys(_NAMES, _ANY)) | st.fixed_dictionaries(
    {"type": st.sampled_from(_TAGS)}, optional=dict.fromkeys(_NAMES[1:], _ANY | IDS | TIMES.map(datetime.isoformat))
)
"""Objects with the right names and any values."""
