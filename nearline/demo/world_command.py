"""The command `python -m nearline.demo.world`: a made-up world's events as JSON lines, small or as large as a feed."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple

import click

from nearline.commands._options import NumberRange, OutputFile
from nearline.demo.made_feed.feed import make_feed
from nearline.demo.made_feed.shape import LARGE, MEDIUM, FeedSize
from nearline.demo.world import Truth, WorldSize, json_lines, make_world

_Size = Literal["small", "medium", "large"]
_SIZES: Final[dict[_Size, FeedSize]] = {"small": FeedSize(*WorldSize()), "medium": MEDIUM, "large": LARGE}


class _Written(NamedTuple):
    lines: Iterable[str]
    truth: Truth


@click.command()
@click.option("--seed", default=7, show_default=True)
@click.option("--size", "name", type=click.Choice([*_SIZES]), default="small", show_default=True,
              help="small: of the demo. The others are feeds, with impressions and counts that grow.")  # fmt: skip
@click.option("--posts", type=click.IntRange(1), help="Another number than the size has; so for the following.")
@click.option("--members", type=click.IntRange(2))
@click.option("--activity", type=click.IntRange(0), help="About how many activity events.")
@click.option("--days", type=NumberRange(0, min_open=True))
@click.option(
    "--truth",
    type=OutputFile(),
    help="also write each post's subject and each member's interests, as JSON",
)
def main(
    *,
    seed: int,
    name: _Size,
    posts: int | None,
    members: int | None,
    activity: int | None,
    days: float | None,
    truth: Path | None,
) -> None:
    """Write the events of a made-up world to stdout, as JSON lines. The last event happens now, or shortly before.

    \b
    Examples:
      python -m nearline.demo.world --seed 7 --posts 1000 --members 100 > events.jsonl
      python -m nearline.demo.world --size large > events.jsonl
    """
    of_name = _SIZES[name]
    size = FeedSize(
        posts or of_name.posts,
        members or of_name.members,
        of_name.activity if activity is None else activity,
        days or of_name.days,
    )
    made = _make(seed, datetime.now(UTC), name, size)
    click.get_text_stream("stdout", encoding="utf-8").writelines(made.lines)
    if truth is not None:
        truth.write_text(json.dumps(made.truth._asdict()), encoding="utf-8")


def _make(seed: int, now: datetime, name: _Size, size: FeedSize) -> _Written:
    if name == "small":
        world = make_world(seed, now, WorldSize(*size))
        return _Written(json_lines(world.events), world.truth)
    feed = make_feed(seed, now, size)
    return _Written(feed.lines(), feed.truth)
