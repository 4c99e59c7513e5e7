"""`nearline get`: shows a post or member as each part of the pipeline holds it."""

from typing import TYPE_CHECKING, Any

import click

from nearline.commands._options import EntityId, InstanceReader, instance_options
from nearline.commands._terminal import print_json, print_table
from nearline.settings.settings import Settings

if TYPE_CHECKING:
    from indexer.tiers import StoredMember
    from nearline.ask.connections import Connections

_ABSENT: dict[str, Any] = {"present": False, "revision": None, "deleted": None}


@click.command()
@click.argument("kind", type=click.Choice(["post", "member"]))
@click.argument("entity_id", metavar="ID", type=EntityId())
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@instance_options
def get(*, kind: str, entity_id: str, as_json: bool, settings: Settings, instance: InstanceReader) -> None:
    """Print a post's or a member's newest context, and how each tier holds it.

    Of a member also which form the serving package's member vectors have, one prompt or a mean, and why; and with how
    many vectors it is asked: several where what it acted on falls into clusters. Where nothing is known of it, not
    even that it was deleted, the exit status is 1.

    \b
    Example:
      nearline get post p1
      nearline get member m1 --json
    """
    from nearline.ask.connections import Connections
    from nearline.errors import NearlineError

    connections = Connections(settings, instance)
    shown = _post_tiers(connections, entity_id) if kind == "post" else _member_parts(connections, entity_id)
    parts = {"context": _context(connections, kind, entity_id), **shown}
    if as_json:
        print_json(parts)
    else:
        _print(parts)
    if parts["context"] is None and not any(parts[tier]["present"] for tier in ("cold", "hot")):
        raise NearlineError(f"there is no {kind} {entity_id}, neither a context nor a vector")


def _context(connections: "Connections", kind: str, entity_id: str) -> Any:
    import msgspec

    from schemas import topics
    from streams.kafka.reading import newest_value

    names = topics.context_names(connections.context_version)
    topic = names.post_contexts if kind == "post" else names.member_contexts
    body = newest_value(connections.kafka, topic, entity_id.encode())
    return None if body is None else msgspec.json.decode(body)


def _post_tiers(connections: "Connections", post_id: str) -> dict[str, Any]:
    """Both tiers, as the retriever sees them."""
    with connections.retriever() as client:
        post = client.post(post_id)
    return {"cold": post.cold.model_dump(mode="json"), "hot": post.hot.model_dump(mode="json")}


def _member_parts(connections: "Connections", member_id: str) -> dict[str, Any]:
    """How the tiers hold it, of which the hot one holds no members, and what its vectors are."""
    from contextlib import closing

    from nearline.ask.member_form import served_form, vectors_of
    from schemas.ids import MemberId

    with closing(connections.cold()) as tier:
        member = tier.members([MemberId(member_id)])[0]
    served = served_form(connections)
    return {
        "cold": _ABSENT if member is None else _cold_member(member),
        "hot": _ABSENT,
        "vector": {"form": served.form, "why": served.why},
        "vectors": vectors_of(member, served)._asdict(),
    }


def _cold_member(member: "StoredMember") -> dict[str, Any]:
    has_vector = member.vector is not None
    return {"present": True, "revision": member.revision, "deleted": member.deleted, "has_vector": has_vector}


def _print(parts: dict[str, Any]) -> None:
    import json

    from nearline.ask.member_form import MemberVectors, ServedForm

    context = parts["context"]
    click.echo("no context" if context is None else json.dumps(context, indent=2, ensure_ascii=False))
    rows = [(tier, *(parts[tier][name] for name in _ABSENT)) for tier in ("cold", "hot")]
    print_table(("tier", *_ABSENT), rows)
    if "vector" in parts:
        click.echo(f"member form: {ServedForm(**parts['vector'])}")
        click.echo(f"vectors: {MemberVectors(**parts['vectors'])}")
