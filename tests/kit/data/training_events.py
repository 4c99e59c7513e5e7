"""Events of members who like posts of a single subject each, so that a test knows what training should find."""

import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from schemas.events import parse_event
from tests.kit.data.events import Event, activity, line, post_created
from trainer.data.feed import Feed, timed_event

START: Final = datetime(2026, 1, 5, tzinfo=UTC)
SUBJECTS: Final = (
    "sourdough crust oven flour dough yeast crumb baking",
    "kernel driver register interrupt firmware bootloader clock pinmux",
    "trail ridge summit boots fog valley tent glacier",
    "violin rehearsal score tempo cello conductor sonata octave",
)
TINY_MODEL: Final = """
hidden = 32
layers = 1
heads = 1
vocabulary = 500
dimensions = [16, 32]
batch_tokens = 512
era = 100
checkpoint_steps = 5
token_dropout = 0.1
"""
"""A `train.toml` of a model that is trained in seconds. `nearline train` takes the prompts that the events suggest."""
TEXTS_ALONE: Final = TINY_MODEL + 'member_form = "mean"\n'
"""The same, whose prompts hold texts alone: one training, not three."""
COMMON: Final = ("today", "we", "again", "some", "more", "little", "very", "often", "people", "thing", "because")


def events(num_posts: int = 400, num_members: int = 24, seed: int = 0) -> Iterator[Event]:
    """Each post is acted on, soon after, by some of the members of its subject."""
    rng = random.Random(seed)
    for number in range(num_posts):
        at = START + timedelta(hours=number)
        subject = rng.randrange(len(SUBJECTS))
        words = rng.sample(SUBJECTS[subject].split(), 3) + rng.sample(COMMON, 4)
        rng.shuffle(words)
        author_id = f"a{subject}-{rng.randrange(3)}"
        yield post_created(f"p{number}", " ".join(words), author_id=author_id, at=at)
        fans = [member for member in range(num_members) if member % len(SUBJECTS) == subject]
        for member in rng.sample(fans, 2):
            at += timedelta(minutes=7)
            yield activity(f"m{member}", f"p{number}", at=at)


def invented_events(num_posts: int = 400, seed: int = 0) -> Iterator[Event]:
    """As `events`, in words that are in one post only. Those of a subject share their letters: a model of letters finds
    them, and no baseline that counts words in common does."""
    rng = random.Random(seed)
    for event in events(num_posts, seed=seed):
        if event["type"] == "activity":
            yield event
            continue
        letters = ("abcdef", "ghijkl", "mnopqr", "stuvwx")[int(event["author_id"][1])]
        invented = ["".join(rng.choices(letters, k=9)) for _ in range(6)]
        yield {**event, "text": " ".join([*invented, *rng.sample(COMMON, 2)])}


def with_impressions(recorded: Iterable[Event], seed: int = 0) -> Iterator[Event]:
    """Before each action the member is shown the post, and another member is shown it who does not act on it."""
    rng = random.Random(seed)
    for event in recorded:
        if event["type"] == "activity":
            member = int(event["member_id"][1:])
            other = (member + 1 + rng.randrange(len(SUBJECTS) - 1)) % 24
            for shown in (member, other):
                yield activity(f"m{shown}", event["post_id"], "impression", at=event["at"])
        yield event


def with_titles(recorded: Iterable[Event]) -> Iterator[Event]:
    """Of each post the first words become a title, which no other post has."""
    for event in recorded:
        words = event.get("text", "").split()
        title = f"{' '.join(words[:4])} {event['post_id']}"
        yield {**event, "text": f"{title}\n{' '.join(words[3:])}"} if words else event


def feed_of(events: Iterable[Event]) -> Feed:
    lines = [line(event) for event in events]
    return Feed(timed_event(parse_event(body), body) for body in lines)
