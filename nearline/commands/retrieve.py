"""`nearline retrieve`: prints the candidates of a member or a text."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from nearline.commands._options import InstanceReader, instance_options
from nearline.commands._terminal import print_json, print_table
from nearline.settings.settings import Settings
from schemas.api import DEFAULT_K, MAX_K
from schemas.printable import printable

if TYPE_CHECKING:
    from nearline.ask.connections import Connections
    from nearline.ask.texts import Texts
    from nearline.client.answer import Answer

_START_CHARS: Final = 60
_OPTIONS_OF_MANY: Final = ("--language", "--exclude-author", "--exclude-post")


class _ManyValues(click.Command):
    """Lets `--language en de` stand for `--language en --language de`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        expanded: list[str] = []
        option: str | None = None
        for at, arg in enumerate(args):
            if arg in _OPTIONS_OF_MANY:
                option = arg
            elif arg.startswith("-"):
                option = None
            elif option is not None and args[at - 1] != option:
                expanded.append(option)
            expanded.append(arg)
        return super().parse_args(ctx, expanded)


def _moment(_: click.Context, parameter: click.Parameter, text: str | None) -> datetime | None:
    from schemas.times import moment_of

    if text is None:
        return None
    try:
        return moment_of(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(cls=_ManyValues)
@click.option("--member", "member_id", metavar="ID", help="The member whose candidates these are.")
@click.option("--text", metavar="T", help="A query in words, instead of a member.")
@click.option("-k", type=click.IntRange(1, MAX_K), default=DEFAULT_K, show_default=True, help="How many at most.")
@click.option("--language", "languages", multiple=True, metavar="L...", help="Only posts in these languages.")
@click.option("--created-after", callback=_moment, metavar="T", help="Only posts after this time (RFC 3339).")
@click.option("--exclude-author", "exclude_authors", multiple=True, metavar="ID...", help="No posts of these members.")
@click.option("--exclude-post", "exclude_posts", multiple=True, metavar="ID...", help="Not these posts.")
@click.option("--hide-acted", is_flag=True, help="Leave out what the member acted on.")
@click.option("--hide-seen", is_flag=True, help="Leave out what the member was shown last (kept if rules.seen is set).")
@click.option("--own-posts", is_flag=True, help="Keep the member's own posts in.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option(
    "--show-text/--no-text", default=None, help="Texts of the posts. Default: the start of each, and none in JSON."
)
@instance_options
def retrieve(
    *, as_json: bool, show_text: bool | None, settings: Settings, instance: InstanceReader, **query: Any
) -> None:
    """Print the candidates of a member or a text, best first.

    Their texts are read from the newest 100,000 post contexts. In JSON they are whole, null where there is none.

    \b
    Example:
      nearline retrieve --member m1 -k 10
      nearline retrieve --text "kafka on a laptop" --language en de --created-after 2026-01-05T10:00:00Z --json
    """
    from nearline.ask.connections import Connections

    if (query["member_id"] is None) == (query["text"] is None):
        raise click.UsageError("give exactly one of --member and --text")
    _check(query)
    connections = Connections(settings, instance)
    with connections.candidates() as client:
        answer = client.retrieve(**query)
    with_texts = not as_json if show_text is None else show_text
    texts = _texts(connections, answer.post_ids) if with_texts and answer.post_ids else None
    if as_json:
        print_json(as_objects(answer, texts))
    else:
        _print(answer, texts)


def as_objects(answer: "Answer", texts: "Texts | None" = None) -> dict[str, Any]:
    """The answer with one object for each candidate, instead of columns."""
    columns = zip(answer.post_ids, answer.scores, answer.tiers, strict=True)
    candidates: list[dict[str, Any]] = [
        {"post_id": post_id, "score": score, "tier": tier} for post_id, score, tier in columns
    ]
    if texts is not None:
        candidates = [{**candidate, "text": texts.get(candidate["post_id"])} for candidate in candidates]
    return {
        "generation": answer.generation,
        "partial": answer.partial,
        "reasons": [reason._asdict() for reason in answer.reasons],
        "candidates": candidates,
        "counts": answer.counts,
        "timings_ms": dict(answer.timings_ms),
    }


def _check(query: dict[str, Any]) -> None:
    """The retriever would refuse the same values, but cannot point to the command's help. Raises UsageError."""
    from pydantic import ValidationError

    from schemas.api import RetrieveRequest

    fields = {name: list(value) if isinstance(value, tuple) else value for name, value in query.items()}
    try:
        RetrieveRequest.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        sentence = first["msg"].removeprefix("Value error, ")
        raise click.UsageError(f"{'.'.join(map(str, first['loc']))}: {sentence}") from None


def _texts(connections: "Connections", post_ids: Sequence[str]) -> "Texts":
    """The texts that can be found. A note on stderr says how many posts have none, or why no text can be read."""
    from nearline.ask.texts import MAX_CONTEXTS, read_texts
    from nearline.errors import NearlineError
    from schemas.errors import BadRecord
    from streams.errors import StreamsError

    try:
        texts = read_texts(connections, post_ids)
    except (NearlineError, StreamsError, BadRecord) as error:
        click.echo(f"nearline: the texts cannot be shown: {error}", err=True)
        return {}
    missing = len(set(post_ids) - texts.keys())
    if missing:
        posts = "1 post" if missing == 1 else f"{missing:,} posts"
        click.echo(f"nearline: no text of {posts} is among the newest {MAX_CONTEXTS:,} contexts", err=True)
    return texts


def _start(text: str | None) -> str | None:
    """The beginning of a text, on one line."""
    return printable(" ".join((text or "").split()), _START_CHARS) or None


def _print(answer: "Answer", texts: "Texts | None") -> None:
    columns = zip(answer.post_ids, answer.scores, answer.tiers, strict=True)
    rows: list[tuple[object, ...]] = [(rank, score, tier, post) for rank, (post, score, tier) in enumerate(columns, 1)]
    header = ("rank", "score", "tier", "post")
    if texts is None:
        print_table(header, rows)
    else:
        starts = [_start(texts.get(post_id)) for post_id in answer.post_ids]
        print_table((*header, "text"), [(*row, start) for row, start in zip(rows, starts, strict=True)])
    counts = ", ".join(f"{number} {tier}" for tier, number in answer.counts.items())
    total_ms = answer.timings_ms.get("total")
    took = "" if total_ms is None else f" in {total_ms:.1f} ms"
    click.echo(f"generation {answer.generation}: {counts}{took}")
    if answer.reasons:
        click.echo(f"{'partial: ' if answer.partial else ''}{', '.join(map(str, answer.reasons))}")
