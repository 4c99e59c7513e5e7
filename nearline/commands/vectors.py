"""`nearline vectors`: prints vectors from the cold tier."""

from contextlib import closing
from typing import TYPE_CHECKING

import click

from nearline.commands._options import EntityId, InstanceReader, instance_options
from nearline.commands._terminal import print_json
from nearline.settings.settings import Settings

if TYPE_CHECKING:
    from indexer.tiers import ColdReader, StoredMember, StoredPost

_AT_ONCE = 500


@click.command()
@click.argument("kind", type=click.Choice(["post", "member"]))
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=EntityId())
@instance_options
def vectors(*, kind: str, ids: tuple[str, ...], settings: Settings, instance: InstanceReader) -> None:
    """Print vectors from the cold tier as JSON lines, in the order asked.

    An id without a vector there is named on stderr, and the exit status is 1.

    \b
    Example:
      nearline vectors post p1 p2
    """
    from nearline.ask.connections import Connections
    from nearline.errors import NearlineError

    missing = []
    with closing(Connections(settings, instance).cold()) as tier:
        for start in range(0, len(ids), _AT_ONCE):
            chunk = ids[start : start + _AT_ONCE]
            for entity_id, stored in zip(chunk, _ask(tier, kind, chunk), strict=True):
                if stored is None or stored.vector is None:
                    missing.append(entity_id)
                else:
                    print_json({"id": entity_id, "revision": stored.revision, "vector": stored.vector.tolist()})
    if missing:
        raise NearlineError(f"the cold tier has no vector of {kind} {', '.join(missing)}")


def _ask(tier: "ColdReader", kind: str, ids: tuple[str, ...]) -> "list[StoredPost | None] | list[StoredMember | None]":
    from schemas.ids import MemberId, PostId

    if kind == "post":
        return tier.posts([PostId(post_id) for post_id in ids], with_vectors=True)
    return tier.members([MemberId(member_id) for member_id in ids])
