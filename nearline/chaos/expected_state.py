"""What a pipeline must hold when all events are searchable. Shares no code with the pipeline."""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from nearline.chaos.feed import Event

_ORDER: Final = {
    "post.created": 0,
    "post.updated": 1,
    "post.deleted": 2,
    "member.updated": 1,
    "member.deleted": 2,
}
_DELETED: Final = 2
_HISTORY: Final = 50
"""Entries of a member's history, by the design."""
_POSITIVE: Final = frozenset({"click", "like", "comment", "share", "follow"})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Entry(NamedTuple):
    """An entry of a member's history. Entries are ordered by time."""

    at_us: int
    post_id: str
    action: str


class Member(NamedTuple):
    """What must be known of a member who was not deleted.

    `history` are the entries that must be there, `possible` those that may be. They differ where a post is deleted: the
    action on it is in the history for a while, if it reaches the member before the delete does, and may push an older
    entry out of a full history. Likewise `acted` and `possibly_acted`.
    """

    profile: Event | None
    history: set[Entry]
    possible: set[Entry]
    acted: set[str]
    possibly_acted: set[str]
    hidden: set[str]

    @property
    def must_be_there(self) -> bool:
        return bool(self.profile or self.history or self.acted or self.hidden)


class ExpectedState(NamedTuple):
    """`live`: the newest event of each live post. `texts`: all texts that a post ever had. `departed`: deleted
    members."""

    live: dict[str, Event]
    deleted: set[str]
    texts: dict[str, set[str]]
    members: dict[str, Member]
    departed: set[str]


def expected_state(events: Iterable[Event]) -> ExpectedState:
    """For each entity the newest event wins: the one with the latest time, and at the same time created < updated <
    deleted. In a feed only repeats are equal in both."""
    events = list(events)
    posts, profiles = _newest(events, "post"), _newest(events, "member")
    live = {post_id: event for post_id, event in posts.items() if _ORDER[event["type"]] < _DELETED}
    departed = {member_id for member_id, event in profiles.items() if _ORDER[event["type"]] == _DELETED}
    texts: dict[str, set[str]] = {}
    for event in events:
        if "text" in event:
            texts.setdefault(event["post_id"], set()).add(event["text"])
    histories, hidden = _histories(events, texts.keys()), _hidden(events)
    members = {
        member_id: _member(histories.get(member_id, set()), hidden.get(member_id, set()), live, profiles.get(member_id))
        for member_id in (_member_ids(events) | profiles.keys()) - departed
    }
    return ExpectedState(live, posts.keys() - live.keys(), texts, members, departed)


def time_us(moment: str) -> int:
    return (datetime.fromisoformat(moment) - _EPOCH) // timedelta(microseconds=1)


def _newest(events: list[Event], kind: str) -> dict[str, Event]:
    """The newest event of each post, or of each member."""
    newest: dict[str, tuple[str, int, Event]] = {}
    for event in events:
        if not event["type"].startswith(f"{kind}."):
            continue
        entity_id = event[f"{kind}_id"]
        order = (str(event.get("at") or event["created_at"]), _ORDER[event["type"]], event)
        if entity_id not in newest or order[:2] > newest[entity_id][:2]:
            newest[entity_id] = order
    return {entity_id: event for entity_id, (_, _, event) in newest.items()}


def _member_ids(events: list[Event]) -> set[str]:
    """All members who acted or wrote."""
    ids = (event.get("author_id") or event.get("member_id") for event in events)
    return {member_id for member_id in ids if member_id is not None}


def _histories(events: list[Event], written: Collection[str]) -> dict[str, set[Entry]]:
    """For each member all entries that its history could ever have had. An action on a post that is never written waits
    for it, and gives none."""
    entries: dict[str, set[Entry]] = {}
    for event in events:
        if "author_id" in event:
            entry = Entry(time_us(event["created_at"]), event["post_id"], "wrote")
            entries.setdefault(event["author_id"], set()).add(entry)
        elif event.get("action") in _POSITIVE and event["post_id"] in written:
            entry = Entry(time_us(event["at"]), event["post_id"], event["action"])
            entries.setdefault(event["member_id"], set()).add(entry)
    return entries


def _hidden(events: list[Event]) -> dict[str, set[str]]:
    """The posts that each member has hidden."""
    hidden: dict[str, set[str]] = {}
    for event in events:
        if event.get("action") == "hide":
            hidden.setdefault(event["member_id"], set()).add(event["post_id"])
    return hidden


def _member(entries: set[Entry], hidden: set[str], live: dict[str, Event], profile: Event | None) -> Member:
    of_live = {entry for entry in entries if entry.post_id in live}
    acted = {entry.post_id for entry in entries if entry.action != "wrote"}
    return Member(
        profile=profile,
        # Entries can only be pushed out by newer ones, and also by those of posts that were deleted later.
        history=_newest_entries(entries) & of_live,
        possible=_newest_entries(of_live),
        acted=acted & live.keys(),
        possibly_acted=acted,
        hidden=hidden,
    )


def _newest_entries(entries: set[Entry]) -> set[Entry]:
    return set(sorted(entries)[-_HISTORY:])
