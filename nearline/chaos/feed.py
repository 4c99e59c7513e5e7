"""A feed that makes trouble, and its expected end, computed by a few lines that share no code with the pipeline.

Creates, updates, deletes, repeats, stale repeats of deleted posts, activity before its post, bursts on one key. Seeded:
the same seed gives the same events.
"""

import random
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

Event = dict[str, Any]

_STEP: Final = timedelta(milliseconds=1)
_BURST: Final = 20
_AUTHORS: Final = 40
_MEMBERS: Final = 60
_WORDS: Final = (
    "broker",
    "ledger",
    "kettle",
    "meadow",
    "copper",
    "signal",
    "harbor",
    "walnut",
    "engine",
    "violin",
    "winter",
    "pepper",
    "tunnel",
    "saddle",
)
_KINDS: Final = {"create": 30, "update": 22, "delete": 8, "repeat": 8, "stale": 6, "burst": 1, "activity": 25}
_ORDER: Final = {"post.created": 0, "post.updated": 1, "post.deleted": 2}


class End(NamedTuple):
    """What must be there when all is done: the newest event of each live post, and the deleted posts."""

    live: dict[str, Event]
    deleted: set[str]


class Feed:
    """`events` are all that were made so far, in the order of their sending."""

    def __init__(self, seed: int, start: datetime) -> None:
        self.events: list[Event] = []
        self._random = random.Random(seed)
        self._at = start
        self._sent: dict[str, list[Event]] = {}
        self._live: dict[str, Event] = {}
        self._dead: list[str] = []
        self._announced: list[str] = []

    def take(self, num_events: int) -> list[Event]:
        """The next ones, about so many."""
        first = len(self.events)
        while len(self.events) < first + num_events:
            (kind,) = self._random.choices(list(_KINDS), list(_KINDS.values()))
            getattr(self, f"_{kind}")()
        return self.events[first:]

    def _create(self) -> None:
        number = len(self._sent) + len(self._announced)
        post_id = self._announced.pop() if self._announced else f"chaos-{number}-{self._random.randrange(10**6)}"
        now = self._now()
        author = f"author-{self._random.randrange(_AUTHORS)}"
        event = {
            "type": "post.created",
            "post_id": post_id,
            "author_id": author,
            "text": self._text(),
            "created_at": now,
        }
        self._send(post_id, {**event, "language": "en"})

    def _update(self) -> None:
        if self._live:
            self._edit(self._random.choice(list(self._live)))

    def _delete(self) -> None:
        if self._live:
            post_id = self._random.choice(list(self._live))
            self._dead.append(post_id)
            self._send(post_id, {"type": "post.deleted", "post_id": post_id, "at": self._now()})

    def _repeat(self) -> None:
        if self._sent:
            self.events.append(self._random.choice(self._sent[self._random.choice(list(self._sent))]))

    def _stale(self) -> None:
        if self._dead:
            self.events.append(self._random.choice(self._sent[self._random.choice(self._dead)]))

    def _burst(self) -> None:
        if self._live:
            post_id = self._random.choice(list(self._live))
            for _ in range(_BURST):
                self._edit(post_id)

    def _edit(self, post_id: str) -> None:
        changes = {"type": "post.updated", "text": self._text(), "at": self._now()}
        self._send(post_id, {**self._live[post_id], **changes})

    def _activity(self) -> None:
        """Sometimes before its post."""
        if self._random.random() < 0.1 or not self._live:
            post_id = f"chaos-early-{len(self.events)}"
            self._announced.append(post_id)
        else:
            post_id = self._random.choice(list(self._live))
        member = f"member-{self._random.randrange(_MEMBERS)}"
        action = self._random.choice(("view", "like", "click", "comment"))
        event = {"type": "activity", "member_id": member, "post_id": post_id, "action": action, "at": self._now()}
        self.events.append(event)

    def _send(self, post_id: str, event: Event) -> None:
        self.events.append(event)
        self._sent.setdefault(post_id, []).append(event)
        if event["type"] == "post.deleted":
            self._live.pop(post_id, None)
        else:
            self._live[post_id] = event

    def _text(self) -> str:
        return " ".join(self._random.choices(_WORDS, k=self._random.randint(3, 30))) + f" {len(self.events)}"

    def _now(self) -> str:
        self._at += _STEP
        return self._at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def expected_end(events: Iterable[Event]) -> End:
    """Per post the newest event wins: by time, then created before updated before deleted. No two events of this feed
    are equal in both, but repeats."""
    newest: dict[str, tuple[str, int, Event]] = {}
    for event in events:
        if event["type"] in _ORDER:
            mine = (str(event.get("at") or event["created_at"]), _ORDER[event["type"]], event)
            if event["post_id"] not in newest or mine[:2] > newest[event["post_id"]][:2]:
                newest[event["post_id"]] = mine
    live = {post_id: event for post_id, (_, order, event) in newest.items() if order < _ORDER["post.deleted"]}
    return End(live, set(newest) - set(live))
