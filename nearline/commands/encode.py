"""`nearline encode`: turns contexts into vectors as the pipeline does, but without a pipeline."""

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


class _Functions(NamedTuple):
    """What turns contexts of each kind into vectors or prompts."""

    posts: Callable[[list[Any]], Any]
    members: Callable[[list[Any]], Any]


class _Kind(NamedTuple):
    """Posts or members: how their contexts are decoded, named and encoded."""

    decode: Callable[[bytes], Any]
    entity_id: Callable[[Any], str]
    encode: "Callable[[list[Any]], Sequence[Outcome | Rendered]]"
    """One result for each context: a vector, or its prompts."""


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--post", "kind", flag_value="post", help="The lines are contexts of posts.")
@click.option("--member", "kind", flag_value="member", help="The lines are contexts of members.")
@click.option("--render", is_flag=True, help="Give the texts that are encoded and their weights, and no vector.")
@click.option(
    "--package", type=click.Path(path_type=Path, file_okay=False), help="Default: the package of the instance."
)
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

    lines = _read_lines(file)
    settings = instance_settings(config, data_dir, package=package)
    kind_of_lines = _kind(kind, _renderer(settings) if render else _encoder(settings))
    while chunk := [_Line(place, _decode(kind_of_lines, place, body)) for place, body in islice(lines, _LINES_AT_ONCE)]:
        outcomes = kind_of_lines.encode([line.context for line in chunk])
        for line, outcome in zip(chunk, outcomes, strict=True):
            fields = {"id": kind_of_lines.entity_id(line.context), "revision": line.context.revision}
            click.echo(msgspec.json.encode(fields | _to_fields(line.place, outcome)))


def _read_lines(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """`FILE:LINE` and body of each line that is not empty."""
    name = getattr(file, "name", "<stdin>")
    return ((f"{name}:{number}", body) for number, body in enumerate(file, 1) if body.strip())


def _encoder(settings: Settings) -> _Functions:
    from encoders.encoder import Encoder
    from indexer.devices import check_presence
    from nearline.up.resources import encode_threads

    check_presence("encode.device", settings.encode.device)
    encoder = Encoder.load(
        settings.package_folder,
        device=settings.encode.device,
        threads=encode_threads(settings),
        budget_tokens=settings.encode.budget_tokens,
        attention=settings.encode.attention,
    )
    return _Functions(encoder.encode_posts, encoder.encode_members)


def _renderer(settings: Settings) -> _Functions:
    from encoders.package.model_package import ModelPackage
    from encoders.prompt.rendering import Renderer

    renderer = Renderer(ModelPackage.load(settings.package_folder))
    return _Functions(renderer.posts, renderer.members)


def _kind(kind: str, functions: _Functions) -> _Kind:
    from schemas.contexts import decode_member_context, decode_post_context

    if kind == "post":
        return _Kind(decode_post_context, lambda context: str(context.post_id), functions.posts)
    return _Kind(decode_member_context, lambda context: str(context.member_id), functions.members)


def _decode(kind: _Kind, place: str, body: bytes) -> Any:
    from schemas.errors import BadRecord

    try:
        return kind.decode(body)
    except BadRecord as error:
        raise click.ClickException(f"{place}: {error}") from error


def _to_fields(place: str, outcome: "Outcome | Rendered") -> dict[str, Any]:
    from encoders.errors import SeveralVectors, Unencodable

    if isinstance(outcome, Unencodable):
        raise click.ClickException(f"{place}: {outcome.cause}")
    if isinstance(outcome, SeveralVectors):
        interests = [{"vector": each.vector_D.tolist(), "weight": each.weight} for each in outcome.interests]
        return {"vector": outcome.vector_D.tolist(), "interests": interests}
    if isinstance(outcome, list):
        return {"prompts": [part._asdict() for part in outcome]}
    return {"vector": None if outcome is None else outcome.tolist()}
