"""Input events as JSON objects, as a user sends them. Without a time they are of now."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from schemas import topics

Event = dict[str, Any]
When = datetime | str | None
"""None is now."""


def post_created(post_id: str, text: str = "text", *, author_id: str = "author", at: When = None, **more: Any) -> Event:
    body = {"post_id": post_id, "author_id": author_id, "text": text, "created_at": rfc3339(at)}
    return {"type": "post.created", **body, **more}


def post_updated(created: Event, text: str = "new text", *, at: When = None, **more: Any) -> Event:
    """`created`: the event that made the post."""
    return {**created, "type": "post.updated", "text": text, "at": rfc3339(at), **more}


def post_deleted(post_id: str, *, at: When = None) -> Event:
    return {"type": "post.deleted", "post_id": post_id, "at": rfc3339(at)}


def member_updated(member_id: str, *, at: When = None, **more: Any) -> Event:
    return {"type": "member.updated", "member_id": member_id, "at": rfc3339(at), **more}


def member_deleted(member_id: str, *, at: When = None) -> Event:
    return {"type": "member.deleted", "member_id": member_id, "at": rfc3339(at)}


def activity(member_id: str, post_id: str, action: str = "like", *, at: When = None, **more: Any) -> Event:
    ids = {"member_id": member_id, "post_id": post_id}
    return {"type": "activity", **ids, "action": action, "at": rfc3339(at), **more}


def rfc3339(at: When = None) -> str:
    if isinstance(at, str):
        return at
    return (at or datetime.now(UTC)).isoformat().replace("+00:00", "Z")


def ago(**time: float) -> str:
    """So long before now, as in `ago(hours=1)`."""
    return rfc3339(datetime.now(UTC) - timedelta(**time))


def line(event: Event) -> bytes:
    """The event as it is sent."""
    return json.dumps(event).encode()


def write_events(file: Path, events: Iterable[Event]) -> Path:
    """One line for each event, as `nearline ingest` and `nearline train` read them."""
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    return file


def topic_of(event: Event) -> str:
    kind = event["type"].partition(".")[0]
    return {"post": topics.POSTS, "member": topics.MEMBERS, "activity": topics.ACTIVITY}[kind]


def key_of(event: Event) -> str:
    return str(event["post_id"] if topic_of(event) == topics.POSTS else event["member_id"])
