"""`nearline retrieve`: the candidates of a member or a text."""

from datetime import datetime
from typing import Any, Final

import click

from nearline.commands._options import InstanceReader, instance_options
from nearline.commands._terminal import print_json, print_table
from nearline.settings import Settings
from schemas.api import DEFAULT_K, MAX_K, RetrieveRequest, RetrieveResponse

_MANY: Final = ("--language", "--exclude-author", "--exclude-post")


class _ManyValues(click.Command):
    """Lets `--language en de` stand for `--language en --language de`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        option: str | None = None
        for at, arg in enumerate(args):
            if arg in _MANY:
                option = arg
            elif arg.startswith("-"):
                option = None
            elif option is not None and args[at - 1] != option:
                spread.append(option)
            spread.append(arg)
        return super().parse_args(ctx, spread)


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
@click.option("--own-posts", is_flag=True, help="Keep the member's own posts in.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@instance_options
def retrieve(*, as_json: bool, settings: Settings, instance: InstanceReader, **asked: Any) -> None:
    """Print the candidates of a member or a text, best first.

    \b
    Example:
      nearline retrieve --member m1 -k 10
      nearline retrieve --text "kafka on a laptop" --language en de --created-after 2026-01-05T10:00:00Z --json
    """
    from nearline.connect import Connections

    if (asked["member_id"] is None) == (asked["text"] is None):
        raise click.UsageError("give exactly one of --member and --text")
    with Connections(settings, instance).retriever() as client:
        answer = client.retrieve(_request(asked))
    if as_json:
        print_json(as_objects(answer))
    else:
        _print(answer)


def as_objects(answer: RetrieveResponse) -> dict[str, Any]:
    """The columns of the HTTP answer as one object for each candidate."""
    columns = zip(answer.post_ids, answer.scores, answer.tiers, strict=True)
    return {
        "generation": answer.generation,
        "partial": answer.partial,
        "reasons": answer.reasons,
        "candidates": [{"post_id": post_id, "score": score, "tier": tier} for post_id, score, tier in columns],
        "counts": {"hot": 0, "cold": 0, **answer.counts},
        "timings_ms": answer.timings_ms,
    }


def _request(asked: dict[str, Any]) -> RetrieveRequest:
    from pydantic import ValidationError

    given = {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}
    try:
        return RetrieveRequest.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise click.UsageError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _print(answer: RetrieveResponse) -> None:
    columns = zip(answer.post_ids, answer.scores, answer.tiers, strict=True)
    print_table(("rank", "score", "tier", "post"), ((at, s, t, p) for at, (p, s, t) in enumerate(columns, 1)))
    counts = ", ".join(f"{number} {tier}" for tier, number in answer.counts.items())
    total_ms = answer.timings_ms.get("total")
    took = "" if total_ms is None else f" in {total_ms:.1f} ms"
    click.echo(f"generation {answer.generation}: {counts}{took}")
    if answer.reasons:
        click.echo(f"{'partial: ' if answer.partial else ''}{', '.join(answer.reasons)}")
