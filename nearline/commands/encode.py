"""`nearline encode`: what the pipeline computes, without the pipeline."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

import click

from nearline.commands._options import place_options
from nearline.settings.loading import instance_settings
from nearline.settings.settings import Settings

if TYPE_CHECKING:
    from encoders.errors import Outcome
    from encoders.prompt.rendering import Rendered

_LINES_AT_ONCE: Final = 1024


class _Line(NamedTuple):
    place: str
    """`FILE:LINE`, for errors."""
    context: Any


class _Sides(NamedTuple):
    """What becomes of contexts of both kinds."""

    posts: Callable[[list[Any]], Any]
    members: Callable[[list[Any]], Any]


class _Side(NamedTuple):
    """One kind of entity: how its contexts are read, named and encoded."""

    decode: Callable[[bytes], Any]
    entity_id: Callable[[Any], str]
    outcomes: "Callable[[list[Any]], Sequence[Outcome | Rendered]]"
    """By one context each: a vector, or what it is rendered as."""


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--post", "kind", flag_value="post", help="The lines are contexts of posts.")
@click.option("--member", "kind", flag_value="member", help="The lines are contexts of members.")
@click.option("--render", is_flag=True, help="Give the texts that are encoded and their weights, and no vector.")
@click.option("--package", type=click.Path(path_type=Path, file_okay=False), help="Else that of the instance.")
@place_options
def encode(
    *,
    file: IO[bytes],
    kind: str | None,
    render: bool,
    package: Path | None,
    data_dir: Path | None,
    config: Path | None,
) -> None:
    """Turn contexts (JSON lines, as `nearline get` shows them) into JSON lines of id, revision and vector.

    The vector is null where there is nothing to encode: a deleted entity, a member without profile and history.
    With --render there are `prompts` in its place, each with `text` and `weight`: the texts as they are encoded, with
    the package's special tokens.

    \b
    Example:
      nearline get post p1 --json | jq -c .context | nearline encode --post
      nearline encode --member contexts.jsonl --package my-package
    """
    if kind is None:
        raise click.UsageError("say whether the lines are posts or members: --post or --member")
    import msgspec

    lines = _read(file)
    settings = instance_settings(config, data_dir, package=package)
    side = _side(kind, _renderer(settings) if render else _encoder(settings))
    while chunk := [_Line(place, _decode(side, place, body)) for place, body in islice(lines, _LINES_AT_ONCE)]:
        outcomes = side.outcomes([line.context for line in chunk])
        for line, outcome in zip(chunk, outcomes, strict=True):
            fields = {"id": side.entity_id(line.context), "revision": line.context.revision}
            click.echo(msgspec.json.encode(fields | _shown(line.place, outcome)))


def _read(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Places and bodies of lines that are not empty."""
    name = getattr(file, "name", "<stdin>")
    return ((f"{name}:{number}", body) for number, body in enumerate(file, 1) if body.strip())


def _encoder(settings: Settings) -> _Sides:
    from encoders.encoder import Encoder
    from indexer.devices import check_presence
    from nearline.up.resources import encode_threads

    check_presence("encode.device", settings.encode.device)
    encoder = Encoder.load(
        settings.package_folder,
        device=settings.encode.device,
        threads=encode_threads(settings),
        budget_tokens=settings.encode.budget_tokens,
    )
    return _Sides(encoder.encode_posts, encoder.encode_members)


def _renderer(settings: Settings) -> _Sides:
    from encoders.package.model_package import ModelPackage
    from encoders.prompt.rendering import Renderer

    renderer = Renderer(ModelPackage.load(settings.package_folder))
    return _Sides(renderer.posts, renderer.members)


def _side(kind: str, sides: _Sides) -> _Side:
    from schemas.contexts import decode_member_context, decode_post_context

    if kind == "post":
        return _Side(decode_post_context, lambda context: str(context.post_id), sides.posts)
    return _Side(decode_member_context, lambda context: str(context.member_id), sides.members)


def _decode(side: _Side, place: str, body: bytes) -> Any:
    from schemas.errors import BadRecord

    try:
        return side.decode(body)
    except BadRecord as error:
        raise click.ClickException(f"{place}: {error}") from error


def _shown(place: str, outcome: "Outcome | Rendered") -> dict[str, Any]:
    from encoders.errors import Unencodable

    if isinstance(outcome, Unencodable):
        raise click.ClickException(f"{place}: {outcome.cause}")
    if isinstance(outcome, list):
        return {"prompts": [part._asdict() for part in outcome]}
    return {"vector": None if outcome is None else outcome.tolist()}
