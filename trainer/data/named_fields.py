"""Which fields of templates the events carry. A field that they never carry would teach nothing, and its quantile table
would be of zeros: it is refused where the settings name it, and not chosen where they name none. So it is with titles,
of which the task search is made."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from encoders.package.manifest import POST_FIELDS, PROFILE_FIELDS, PostTemplate
from schemas.events import Activity, Event, MemberUpdated, PostCreated, PostUpdated
from schemas.ids import Micros
from trainer.data.auxiliary_tasks import task_rows
from trainer.data.feed import Feed, TimedEvent
from trainer.errors import BadEvents
from trainer.settings import TemplateSettings

_CHOSEN_FROM: Final = 0.05
"""A field is chosen if at least this share of all posts, or of all profiles, carry it. What fewer carry is hardly
learned, and every prompt would pay for it: each of them holds a count, be it zero."""
_OF_EVERY_POST: Final = ("author", "age", "text")


def refuse_missing_fields(feed: Feed, cut_us: Micros, templates: TemplateSettings) -> None:
    """Raises BadEvents."""
    sides = {"post": [field for field in templates.post if field != "text"], "profile": [*(templates.profile or ())]}
    if not any(sides.values()):
        return
    carriers = _Carriers(feed.before(cut_us))
    for side, fields in sides.items():
        if missing := [field for field in fields if not carriers.of(side, field)]:
            raise BadEvents(
                f"templates.{side} names {', '.join(missing)}, which no event before the held out ones carries; take "
                "it out of the settings, or give other events"
            )


def refuse_missing_numbers(feed: Feed, cut_us: Micros, template: PostTemplate, start: Path) -> None:
    """`template`: of the package `start`, from which training goes on. Its tables are fitted anew, and of what no event
    carries every post would have the highest percentile. Raises BadEvents."""
    if not template.numbers:
        return
    carriers = _Carriers(feed.before(cut_us))
    if missing := [field for field in template.numbers if not carriers.of("post", field)]:
        raise BadEvents(
            f"the prompts of {start} hold {', '.join(missing)}, which no event before the held out ones carries; give "
            "other events, or start from another package"
        )


def carried_templates(feed: Feed, cut_us: Micros) -> TemplateSettings:
    """Templates of what the events before the cut carry. The age comes with counts: without any, a post is published
    once, and its age is always zero. Rates are left out, because counts and age say the same. Histories have their
    ages, because every action has a time."""
    carriers = _Carriers(feed.before(cut_us))
    common = [field for field in POST_FIELDS if carriers.are_enough("post", field)]
    counts = [field for field in common if field.startswith("count.")]
    others = [field for field in common if field in ("author", "language")]
    profile = tuple(field for field in PROFILE_FIELDS if carriers.are_enough("profile", field))
    return TemplateSettings(
        post=(*others, *(["age", *counts] if counts else []), "text"), profile=profile, history_ages=True
    )


def carry_titles(feed: Feed, cut_us: Micros) -> bool:
    """Whether enough posts before the cut have a title above the rest of their text, and not all the same one."""
    posts = [post for post in feed.posts.values() if post.created_at_us < cut_us]
    titles = [row.owner for row in task_rows("search", posts) if row.part.is_query]
    return len(set(titles)) > 1 and len(titles) >= _CHOSEN_FROM * len(posts)


class _Carriers:
    """Of each field the ids of the posts, or of the members, that carry it in some event."""

    def __init__(self, events: Iterable[TimedEvent]) -> None:
        self._all: dict[str, set[str]] = {"post": set(), "profile": set()}
        self._by_field: dict[tuple[str, str], set[str]] = defaultdict(set)
        for timed in events:
            self._add(timed.event)

    def _add(self, event: Event) -> None:
        if isinstance(event, Activity):
            self._by_field["post", f"count.{event.action}"].add(event.post_id)
        elif isinstance(event, PostCreated | PostUpdated):
            self._all["post"].add(event.post_id)
            if event.language:
                self._by_field["post", "language"].add(event.post_id)
        elif isinstance(event, MemberUpdated):
            self._all["profile"].add(event.member_id)
            for field in _profile_fields(event):
                self._by_field["profile", field].add(event.member_id)

    def of(self, side: str, field: str) -> set[str]:
        """`side`: `post` or `profile`."""
        if side == "post" and field in _OF_EVERY_POST:
            return self._all["post"]
        return self._by_field.get((side, field.replace("rate.", "count.")), set())

    def are_enough(self, side: str, field: str) -> bool:
        """Whether the field is worth a place in every prompt. Actions on posts that no event made do not count."""
        carriers = self.of(side, field) & self._all[side]
        return bool(carriers) and len(carriers) >= _CHOSEN_FROM * len(self._all[side])


def _profile_fields(event: MemberUpdated) -> Iterator[str]:
    return (field for field in PROFILE_FIELDS if getattr(event, field))
