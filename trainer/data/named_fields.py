"""Whether the events carry what a template names. A field that they never carry would teach nothing, and its quantile
table would be of zeros."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from encoders.package.manifest import PROFILE_FIELDS, PostTemplate
from schemas.events import Activity, MemberUpdated, PostCreated, PostUpdated
from schemas.ids import Micros
from trainer.data.feed import Feed, TimedEvent
from trainer.errors import BadEvents
from trainer.settings import TemplateSettings


def refuse_missing_fields(feed: Feed, cut_us: Micros, templates: TemplateSettings) -> None:
    """Raises BadEvents."""
    sides = {"post": [field for field in templates.post if field != "text"], "profile": [*(templates.profile or ())]}
    if not any(sides.values()):
        return
    carried = _carried(feed.before(cut_us))
    for side, fields in sides.items():
        if missing := [field for field in fields if field not in carried[side]]:
            raise BadEvents(
                f"templates.{side} names {', '.join(missing)}, which no event before the held out ones carries; take "
                "it out of the settings, or give other events"
            )


def refuse_missing_numbers(feed: Feed, cut_us: Micros, template: PostTemplate, start: Path) -> None:
    """`template`: of the package `start`, from which training goes on. Its tables are fitted anew, and of what no event
    carries every post would have the highest percentile. Raises BadEvents."""
    if not template.numbers:
        return
    carried = _carried(feed.before(cut_us))["post"]
    if missing := [field for field in template.numbers if field not in carried]:
        raise BadEvents(
            f"the prompts of {start} hold {', '.join(missing)}, which no event before the held out ones carries; give "
            "other events, or start from another package"
        )


def _carried(events: Iterable[TimedEvent]) -> dict[str, set[str]]:
    """The fields of posts and of profiles that some event carries."""
    posts, profiles = {"author", "age"}, set[str]()
    for timed in events:
        event = timed.event
        if isinstance(event, Activity):
            posts |= {f"count.{event.action}", f"rate.{event.action}"}
        elif isinstance(event, PostCreated | PostUpdated) and event.language:
            posts.add("language")
        elif isinstance(event, MemberUpdated):
            profiles |= set(_profile_fields(event))
    return {"post": posts, "profile": profiles}


def _profile_fields(event: MemberUpdated) -> Iterator[str]:
    return (field for field in PROFILE_FIELDS if getattr(event, field))
