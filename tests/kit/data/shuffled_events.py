"""Events for the context stage in a shuffled order, and the contexts that must follow, worked out without any code of
the stage.

Posts are created, updated and deleted, with repeats. A deleted post has no activity, so every history is known whatever
the order. The events are sent in slices, so that a worker can die in between.
"""

import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from schemas.contexts import MemberContext, PostContext
from schemas.times import to_micros
from tests.kit.data.events import (
    Event,
    activity,
    key_of,
    line,
    member_updated,
    post_created,
    post_deleted,
    post_updated,
    topic_of,
)

Sent = tuple[str, str, bytes]
"""Topic, key, value."""

POSITIVE = {"like", "share", "comment", "click"}
HISTORY = 50


class ShuffledEvents:
    def __init__(self, seed: int = 1, num_posts: int = 60, num_members: int = 12, num_actions: int = 600) -> None:
        self._random = random.Random(seed)
        self._start = datetime.now(UTC) - timedelta(hours=10)
        self._posts = {f"p{n}": self._post_events(f"p{n}", f"m{n % num_members}", n) for n in range(num_posts)}
        live = [post_id for post_id in self._posts if self._newest(post_id)["type"] != "post.deleted"]
        self._activity = [
            activity(
                f"m{self._random.randrange(num_members)}",
                self._random.choice(live),
                self._random.choice(["like", "share", "view", "view", "impression"]),
                at=self._at(10_000 + n),
            )
            for n in range(num_actions)
        ]
        self._profiles = [
            member_updated(f"m{n}", at=self._at(k), headline=f"h{k}", skills=[])
            for n in range(num_members // 2)
            for k in (1, 2, 3)
        ]

    def sent(self) -> list[Sent]:
        """All events in a shuffled order, so activity may come before its post or after it."""
        posts = [event for events in self._posts.values() for event in [*events, *events[:1]]]
        everything = [*posts, *self._activity, *self._profiles]
        self._random.shuffle(everything)
        return [(topic_of(event), key_of(event), line(event)) for event in everything]

    def entity_ids(self) -> list[str]:
        return [*self._posts, *self._histories()]

    def check(self, posts: dict[str, PostContext], members: dict[str, MemberContext]) -> None:
        """Checks the newest context of each entity, once nothing is held back."""
        counts = self._counts()
        for post_id in self._posts:
            newest, context = self._newest(post_id), posts[post_id]
            if newest["type"] == "post.deleted":
                assert context.deleted, post_id
            else:
                assert (context.deleted, context.text) == (False, newest["text"]), post_id
                assert context.counts == counts[post_id], f"{context} and not {counts[post_id]}"
        for member_id, entries in self._histories().items():
            entries_of_context = [(e.at_us, e.post_id, e.action) for e in members[member_id].history]
            assert entries_of_context == sorted(entries)[-HISTORY:], member_id
        for profile in self._profiles:
            assert members[profile["member_id"]].headline == "h3"

    def _histories(self) -> dict[str, list[tuple[int, str, str]]]:
        histories: dict[str, list[tuple[int, str, str]]] = {}
        for event in self._activity:
            if event["action"] in POSITIVE:
                entry = _us(event["at"]), event["post_id"], event["action"]
                histories.setdefault(event["member_id"], []).append(entry)
        for post_id, events in self._posts.items():
            if self._newest(post_id)["type"] != "post.deleted":
                entry = _us(events[0]["created_at"]), post_id, "wrote"
                histories.setdefault(events[0]["author_id"], []).append(entry)
        return histories

    def _counts(self) -> dict[str, Counter[str]]:
        counts: dict[str, Counter[str]] = {post_id: Counter() for post_id in self._posts}
        for event in self._activity:
            counts[event["post_id"]][event["action"]] += 1
        return counts

    def _newest(self, post_id: str) -> Event:
        return max(self._posts[post_id], key=lambda event: event.get("at", event.get("created_at")))

    def _post_events(self, post_id: str, author_id: str, number: int) -> list[Event]:
        born = self._at(number)
        created = post_created(post_id, f"{post_id} as created", author_id=author_id, at=born, language="en")
        events = [created]
        for update in range(self._random.randrange(3)):
            at = self._at(1000 * (update + 1) + number)
            events.append(post_updated(created, f"{post_id} update {update}", at=at))
        if number % 7 == 0:
            events.append(post_deleted(post_id, at=self._at(9000 + number)))
        return events

    def _at(self, seconds: int) -> datetime:
        return self._start + timedelta(seconds=seconds)


def slices(sent: list[Sent], number: int) -> Iterator[list[Sent]]:
    for n in range(number):
        yield sent[n * len(sent) // number : (n + 1) * len(sent) // number]


def _us(text: str) -> int:
    return to_micros(datetime.fromisoformat(text))
