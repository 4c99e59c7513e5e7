"""A stream of events that makes trouble.

Posts are created, updated and deleted, and members get profiles and leave. Events are repeated, also after their post
was deleted; activity comes before its post or after its member was deleted; some keys get many events at once. The same
seed gives the same events.
"""

import random
from datetime import datetime, timedelta
from typing import Any, Final

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
_ACTIONS: Final = ("view", "like", "click", "comment", "hide")
_INDUSTRIES: Final = ("shipping", "music", "baking")
_KINDS: Final = {
    "create": 30,
    "update": 20,
    "delete": 8,
    "repeat": 8,
    "stale": 6,
    "burst": 1,
    "profile": 6,
    "leave": 1,
    "activity": 25,
}


class Feed:
    """`events` are all events so far, in the order in which they are to be sent."""

    def __init__(self, seed: int, start: datetime) -> None:
        self.events: list[Event] = []
        self._random = random.Random(seed)
        self._at = start
        self._sent: dict[str, list[Event]] = {}
        """All events of each post, and of each member with a profile."""
        self._num_posts = 0
        self._live: dict[str, Event] = {}
        self._dead: list[str] = []
        self._early: list[str] = []
        self._members = [f"member-{number}" for number in range(_MEMBERS)]
        self._departed: list[str] = []

    def take(self, num_events: int) -> list[Event]:
        """The next events: `num_events`, or a few more."""
        first = len(self.events)
        while len(self.events) < first + num_events:
            (kind,) = self._random.choices(list(_KINDS), list(_KINDS.values()))
            getattr(self, f"_{kind}")()
        return self.events[first:]

    def _create(self) -> None:
        self._num_posts += 1
        new_id = f"chaos-{self._num_posts}-{self._random.randrange(10**6)}"
        post_id = self._early.pop() if self._early else new_id
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

    def _profile(self) -> None:
        member_id = self._random.choice(self._members)
        event = {
            "type": "member.updated",
            "member_id": member_id,
            "headline": self._text(),
            "skills": self._random.sample(_WORDS, 2),
            "industry": self._random.choice(_INDUSTRIES),
            "language": "en",
            "at": self._now(),
        }
        self._send(member_id, event)

    def _leave(self) -> None:
        """Deletes a member for good. A new one takes its place."""
        place = self._random.randrange(len(self._members))
        member_id = self._members[place]
        self._members[place] = f"member-{_MEMBERS + len(self._departed)}"
        self._departed.append(member_id)
        self._dead.append(member_id)
        self._send(member_id, {"type": "member.deleted", "member_id": member_id, "at": self._now()})

    def _burst(self) -> None:
        if self._live:
            post_id = self._random.choice(list(self._live))
            for _ in range(_BURST):
                self._edit(post_id)

    def _edit(self, post_id: str) -> None:
        changes = {"type": "post.updated", "text": self._text(), "at": self._now()}
        self._send(post_id, {**self._live[post_id], **changes})

    def _activity(self) -> None:
        """Sometimes the post is not created yet, and sometimes the member is deleted already."""
        if self._random.random() < 0.1 or not self._live:
            post_id = f"chaos-early-{len(self.events)}"
            self._early.append(post_id)
        else:
            post_id = self._random.choice(list(self._live))
        is_departed = self._departed and self._random.random() < 0.05
        member_id = self._random.choice(self._departed if is_departed else self._members)
        action = self._random.choice(_ACTIONS)
        event = {"type": "activity", "member_id": member_id, "post_id": post_id, "action": action, "at": self._now()}
        self.events.append(event)

    def _send(self, entity_id: str, event: Event) -> None:
        self.events.append(event)
        self._sent.setdefault(entity_id, []).append(event)
        if event["type"] == "post.deleted":
            self._live.pop(entity_id, None)
        elif "post_id" in event:
            self._live[entity_id] = event

    def _text(self) -> str:
        return " ".join(self._random.choices(_WORDS, k=self._random.randint(3, 30))) + f" {len(self.events)}"

    def _now(self) -> str:
        self._at += _STEP
        return self._at.isoformat(timespec="microseconds").replace("+00:00", "Z")
