"""What the demo has to know of a file of events before it sends it. Reads the file; knows nothing of the pipeline."""

from collections import Counter, deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from schemas.errors import BadRecord
from schemas.events import (
    Activity,
    Event,
    MemberDeleted,
    PostCreated,
    PostDeleted,
    PostUpdated,
    parse_event,
)
from schemas.ids import Micros
from schemas.times import to_micros
from streams.operate.event_files import open_events

HOT_POSTS: Final = 3_000
"""How many posts the hot tier should hold; with fewer than 6,000 posts, half of them."""
_RECENT_ACTIONS: Final = 5_000
_POSITIVE: Final = frozenset({"click", "like", "comment", "share", "follow"})


@dataclass
class Facts:
    """What is in one file. Bad lines are left out; `nearline ingest` reports them."""

    num_events: int = 0
    created_us: dict[str, Micros] = field(default_factory=dict)
    """The creation times of the posts that are live at the end."""
    members_gone: set[str] = field(default_factory=set)
    _recent: deque[str] = field(default_factory=lambda: deque(maxlen=_RECENT_ACTIONS))
    """The members of the newest positive actions."""

    def add(self, event: Event) -> None:
        self.num_events += 1
        if isinstance(event, PostCreated):
            self.created_us[event.post_id] = to_micros(event.created_at)
        elif isinstance(event, PostDeleted):
            self.created_us.pop(event.post_id, None)
        elif isinstance(event, MemberDeleted):
            self.members_gone.add(event.member_id)
        elif isinstance(event, Activity) and event.action in _POSITIVE:
            self._recent.append(event.member_id)

    @property
    def hot_posts(self) -> int:
        """How many posts the hot tier should hold, so that the demo shows both tiers."""
        return max(1, min(HOT_POSTS, (len(self.created_us) + 1) // 2))

    def newest_post(self, among: Collection[str] | None = None) -> str | None:
        """The live post that was created last, or of the live posts among these the one that was."""
        post_ids = self.created_us.keys() if among is None else self.created_us.keys() & set(among)
        return max(post_ids, key=lambda post_id: (self.created_us[post_id], post_id), default=None)

    def busiest_members(self, num: int) -> list[str]:
        """The members with the most actions among the newest positive ones."""
        counts = Counter(member_id for member_id in self._recent if member_id not in self.members_gone)
        return [member_id for member_id, _ in counts.most_common(num)]


def read_facts(file: Path) -> Facts:
    facts = Facts()
    for event in _events(file):
        facts.add(event)
    return facts


def read_texts(file: Path, post_ids: set[str]) -> dict[str, str]:
    """The newest text of each of these posts."""
    return {
        event.post_id: event.text
        for event in _events(file)
        if isinstance(event, PostCreated | PostUpdated) and event.post_id in post_ids
    }


def _events(file: Path) -> Iterator[Event]:
    with open_events(str(file)) as opened:
        for _, line in opened.lines():
            try:
                yield parse_event(line)
            except BadRecord:
                continue
