"""The demo's world with what the trainer's tasks need: words before colons, titles and hashtags.

The label of each task follows from a post's subject, and the words of the subject stay in the text. So a task can be
learned though its label is taken out, and what one task teaches is of use to the others.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from nearline.demo.subjects import SUBJECTS
from nearline.demo.world import DEMO_SIZE, WorldSize, json_lines, make_world
from schemas.events import parse_event
from trainer.data.feed import Feed, timed_event

_NOW: Final = datetime(2026, 1, 12, tzinfo=UTC)
_TITLE_WORDS: Final = 5
_FIELDS: Final = ("craft", "nature", "work", "play")
_MOODS: Final = ("slow", "loud", "bright", "small", "old")
_TAGGED: Final = 3
"""One post of so many has a hashtag."""


def task_feed(seed: int = 7, size: WorldSize = DEMO_SIZE) -> Feed:
    world = make_world(seed, _NOW, size)
    events = list(_with_labels(world.events, world.truth.subject_of))
    lines = [line.encode() for line in json_lines(events)]
    return Feed(timed_event(parse_event(line), line) for line in lines)


def _with_labels(events: list[dict[str, Any]], subject_of: dict[str, str]) -> Iterator[dict[str, Any]]:
    numbers = {subject: number for number, subject in enumerate(sorted(SUBJECTS))}
    for number, event in enumerate(events):
        if "text" not in event:
            yield event
            continue
        subject = subject_of[event["post_id"]]
        yield {**event, "text": _text(event["text"], subject, numbers[subject], is_tagged=number % _TAGGED == 0)}


def _text(text: str, subject: str, number: int, *, is_tagged: bool) -> str:
    words = text.split()
    title, body = " ".join(words[:_TITLE_WORDS]), " ".join(words[_TITLE_WORDS:])
    hashtag = f" #{_MOODS[number % len(_MOODS)]}" if is_tagged else ""
    return f"{_FIELDS[number % len(_FIELDS)]}: {subject}: {title}\n\n{body}{hashtag}"
