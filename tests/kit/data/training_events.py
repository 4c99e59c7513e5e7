"""A small feed whose members care about one subject each, so that what is to be found is known."""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from schemas.events import parse_event
from trainer.data.feed import Feed, timed

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
"""A `train.toml` of a model that is trained in seconds."""
COMMON: Final = ("today", "we", "again", "some", "more", "little", "very", "often", "people", "thing", "because")


def events(num_posts: int = 400, num_members: int = 24, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Each post is acted on, soon after, by some of the members of its subject."""
    rng = random.Random(seed)
    for number in range(num_posts):
        at = START + timedelta(hours=number)
        subject = rng.randrange(len(SUBJECTS))
        words = rng.sample(SUBJECTS[subject].split(), 3) + rng.sample(COMMON, 4)
        rng.shuffle(words)
        yield {
            "type": "post.created",
            "post_id": f"p{number}",
            "author_id": f"a{subject}-{rng.randrange(3)}",
            "text": " ".join(words),
            "created_at": stamp(at),
        }
        fans = [member for member in range(num_members) if member % len(SUBJECTS) == subject]
        for member in rng.sample(fans, 2):
            at += timedelta(minutes=7)
            yield activity(f"m{member}", f"p{number}", "like", at)


def activity(member_id: str, post_id: str, action: str, at: datetime, **more: Any) -> dict[str, Any]:
    return {
        "type": "activity",
        "member_id": member_id,
        "post_id": post_id,
        "action": action,
        "at": stamp(at),
        **more,
    }


def stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def feed_of(found: Any) -> Feed:
    lines = [json.dumps(one).encode() for one in found]
    return Feed(timed(parse_event(line), line) for line in lines)


def write_events(file: Path, found: Any) -> Path:
    file.write_text("".join(json.dumps(one) + "\n" for one in found))
    return file
