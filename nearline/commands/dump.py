"""`nearline dump`: prints all live posts of a tier."""

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from nearline.commands._options import InstanceReader, instance_options
from nearline.commands._terminal import print_json
from nearline.settings.settings import Settings

if TYPE_CHECKING:
    from nearline.ask.connections import Connections


@click.command()
@click.argument("kind", type=click.Choice(["posts"]))
@click.option("--tier", type=click.Choice(["cold", "hot"]), required=True, help="Which tier.")
@instance_options
def dump(*, kind: str, tier: str, settings: Settings, instance: InstanceReader) -> None:
    """Print all live posts of a tier as JSON lines, in any order.

    \b
    Example:
      nearline dump posts --tier hot | wc -l
    """
    from nearline.ask.connections import Connections

    connections = Connections(settings, instance)
    for line in _hot(connections) if tier == "hot" else _cold(connections):
        print_json(line)


def _hot(connections: "Connections") -> Iterator[dict[str, Any]]:
    with connections.retriever() as client:
        for post in client.hot_posts():
            yield post.model_dump(mode="json")


def _cold(connections: "Connections") -> Iterator[dict[str, Any]]:
    """Each post once. The tier returns a post twice if it is written while the tier is read."""
    from schemas.times import to_rfc3339

    seen: set[str] = set()
    with closing(connections.cold()) as tier:
        for post in tier.scroll_posts():
            if post.post_id not in seen:
                seen.add(post.post_id)
                yield {
                    "post_id": post.post_id,
                    "revision": post.revision,
                    "author_id": post.author_id,
                    "created_at": to_rfc3339(post.created_at_us),
                }
