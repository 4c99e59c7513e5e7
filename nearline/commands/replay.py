"""`nearline replay`: has a running stage process records again."""

import time
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import click

from nearline.commands._options import InstanceReader, instance_options
from nearline.commands._terminal import on_terminal
from nearline.settings.settings import Settings

if TYPE_CHECKING:
    from nearline.ask.connections import Connections
    from schemas.ids import Kind, Millis
    from schemas.topics import ReplayedStage
    from streams.operate.replay import Asked, ReplaySelection

_MOST_UNKNOWN: Final = 20
"""So many unknown ids are printed."""
_KINDS: Final = {"posts": "post", "members": "member"}


@click.group()
def replay() -> None:
    """Encode or index again what the serving generation has already.

    The running stage does it while it has nothing new to do, so new events do not wait. `nearline status` shows how
    much is left, and `nearline wait` waits for it. Called twice, or again after a kill, it does no harm.

    \b
    Example:
      nearline replay encode --since 2026-01-05T10:00:00Z --wait
      nearline replay index
    """


def _selection_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of both commands. Those that select are given to the function as `selection` and `kinds`."""

    @click.option("--since", metavar="TIME", help="Only what was last written at this time or later.")
    @click.option("--until", metavar="TIME", help="Only what was last written before this time.")
    @click.option("--only", type=click.Choice(list(_KINDS)), help="One kind alone.")
    @click.option("--ids", metavar="FILE", help="Only these ids, one a line; `-` is standard input.")
    @click.option("--wait", "waits", is_flag=True, help="Return when all of it is searchable.")
    @wraps(command)
    def with_selection(
        *, since: str | None, until: str | None, only: str | None, ids: str | None, **options: Any
    ) -> None:
        if ids is not None and (since is not None or until is not None):
            raise click.UsageError("--ids: it does not go together with --since and --until; choose one of both")
        kinds = list(_KINDS.values()) if only is None else [_KINDS[only]]
        command(selection=_selection(since, until, ids), kinds=kinds, **options)

    return with_selection


@replay.command()
@_selection_options
@instance_options
def encode(
    *,
    selection: "ReplaySelection",
    kinds: "list[Kind]",
    waits: bool,
    settings: Settings,
    instance: InstanceReader,
) -> None:
    """Encode contexts again; their new vectors take the place of the old ones everywhere.

    For an encoder that was mended: start it again, then call this. Times are those at which a context was published.
    What has changed since is encoded anyway, and is left out.

    \b
    Example:
      nearline replay encode --since 2026-01-05T10:00:00Z --until 2026-01-05T12:00:00Z --wait
      nearline replay encode --only members
      cut -d, -f1 broken.csv | nearline replay encode --ids -
    """
    from nearline.ask.connections import Connections

    _replay(Connections(settings, instance), "encode", selection, kinds, waits=waits)


@replay.command()
@_selection_options
@instance_options
def index(
    *,
    selection: "ReplaySelection",
    kinds: "list[Kind]",
    waits: bool,
    settings: Settings,
    instance: InstanceReader,
) -> None:
    """Write embeddings into the cold tier again, also where it holds them already.

    For a cold tier that was damaged, or was brought back from an older copy. Times are those at which an embedding was
    written. Nothing newer is overwritten. The hot tier reads its records from the log at every start of the retriever.

    \b
    Example:
      nearline replay index --wait
      nearline replay index --only posts --since 2026-01-05T00:00:00Z
    """
    from nearline.ask.connections import Connections

    _replay(Connections(settings, instance), "index", selection, kinds, waits=waits)


def _selection(since: str | None, until: str | None, ids: str | None) -> "ReplaySelection":
    from streams.operate.id_file import read_ids
    from streams.operate.replay import ReplaySelection

    since_ms, until_ms = _time("--since", since), _time("--until", until)
    if since_ms is not None and until_ms is not None and until_ms <= since_ms:
        raise click.UsageError("--until: it is not after --since, so nothing is between them; name a later time")
    return ReplaySelection(
        since_ms=since_ms,
        until_ms=until_ms,
        ids=None if ids is None else read_ids(ids),
    )


def _time(option: str, text: str | None) -> "Millis | None":
    from schemas.ids import Millis
    from schemas.times import from_rfc3339

    try:
        return None if text is None else Millis(from_rfc3339(text) // 1000)
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from error


def _replay(
    connections: "Connections",
    stage: "ReplayedStage",
    selection: "ReplaySelection",
    kinds: "list[Kind]",
    *,
    waits: bool,
) -> None:
    from tqdm import tqdm

    from streams.operate.replay import ReplayRequests

    started = time.monotonic()
    with tqdm(desc="reading", unit=" records", leave=False, disable=not on_terminal()) as bar:
        generation, contexts = connections.generation, connections.context_version
        requests = ReplayRequests(connections.kafka, stage, generation, selection, report=bar.update, contexts=contexts)
        bar.total = requests.num_offsets(kinds)
        asked = requests.send(kinds)
    _print(stage, asked)
    if waits:
        _wait(connections, stage, sum(asked.numbers.values()))
        click.echo(f"all of it is searchable, after {time.monotonic() - started:.1f} s")


def _print(stage: "ReplayedStage", asked: "Asked") -> None:
    numbers = " and ".join(f"{number} {kind}{'' if number == 1 else 's'}" for kind, number in asked.numbers.items())
    click.echo(f"{numbers} will be {'encoded' if stage == 'encode' else 'indexed'} again")
    if asked.unknown_ids:
        shown = ", ".join(key.decode("utf-8", "replace") for key in asked.unknown_ids[:_MOST_UNKNOWN])
        more = " and more" if len(asked.unknown_ids) > _MOST_UNKNOWN else ""
        unknown = "1 id is" if len(asked.unknown_ids) == 1 else f"{len(asked.unknown_ids)} ids are"
        click.echo(f"{unknown} unknown: {shown}{more}", err=True)


def _wait(connections: "Connections", stage: "ReplayedStage", number: int) -> None:
    """However long it takes: the work goes on too if somebody ends this command."""
    import math

    from nearline.ask.hot_reports import SlowestFeed
    from nearline.commands._replay_bar import ReplayBar
    from streams.operate.wait import Wait

    hot = SlowestFeed(connections, connections.generation)
    with ReplayBar(number, shown=on_terminal()) as bar:
        try:
            wait = Wait(connections.kafka, connections.generation, hot.positions, bar.show, timeout_s=math.inf)
            wait.run_from(stage)
        finally:
            hot.close()
