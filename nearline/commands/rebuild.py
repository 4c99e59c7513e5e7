"""`nearline rebuild`: makes anew, from the events, what the stages have made of them."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nearline.commands._generation_acts import act_options, operator
from nearline.commands._generation_gate import print_gate
from nearline.commands._options import InstanceReader, instance_options
from nearline.commands._terminal import on_terminal
from nearline.settings.settings import Settings

if TYPE_CHECKING:
    from schemas.ids import ContextVersion
    from streams.operate.wait import Progress


@click.group()
def rebuild() -> None:
    """Make anew, from the events, what the stages have made of them.

    \b
    Example:
      nearline rebuild contexts
    """


@rebuild.command()
@click.option(
    "--from",
    "files",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="FILES",
    help="A folder of nearline export, with the events that the topics have no more.",
)
@click.option("--force", is_flag=True, help="Although events are missing, or the two differ; needs a reason.")
@click.option("--drop", "drops", is_flag=True, help="Give up the version that no generation reads yet; delete it.")
@act_options
@instance_options
def contexts(
    *,
    files: Path | None,
    force: bool,
    drops: bool,
    reason: str | None,
    by: str | None,
    settings: Settings,
    instance: InstanceReader,
) -> None:
    """Make new rows and contexts of all events, beside those that serve, and compare both.

    The next generation that is built takes them over. The old ones stay for as long as a generation reads them. Events
    that come in meanwhile reach both. Running the command again goes on; when it is done, it compares again. The exit
    status is 1 if the two differ.

    To bring back the offsets of a lost consumer group is something else: nearline contexts rebuild.

    \b
    Example:
      nearline rebuild contexts && nearline generations build my-package --wait
      nearline rebuild contexts --from recorded
      nearline rebuild contexts --drop
    """
    from nearline.ask.connections import Connections
    from nearline.rebuild.rebuild import begin, compare, drop

    if drops and (force or files is not None):
        raise click.UsageError("--drop: it does not go together with --from and --force; choose one of both")
    kafka, who = Connections(settings, instance).kafka, operator(by, reason)
    if drops:
        dropped = drop(kafka, who)
        click.echo("no version is being rebuilt" if dropped is None else f"version {dropped} is given up and deleted")
        return
    version = begin(kafka, who, files, force=force)
    click.echo(f"version {version} of the contexts is built beside the serving one")
    report = _draw if on_terminal() else _ignore
    found = compare(kafka, version, settings.rules, who, report, force=force)
    if on_terminal():
        click.echo("\r\x1b[K", nl=False, err=True)
    print_gate(found)
    if found.holds or force:
        click.echo(f"the next generation takes version {version} over: nearline generations build PACKAGE")
    else:
        click.echo(_not_taken_over(version))
        click.get_current_context().exit(1)


def _not_taken_over(version: "ContextVersion") -> str:
    return (
        f"version {version} differs, so no generation takes it over; if it is the old one that is wrong: nearline "
        "rebuild contexts --force --reason TEXT; else give it up: nearline rebuild contexts --drop"
    )


def _draw(progress: "Progress") -> None:
    left = "it does not answer now" if progress.records is None else f"{progress.records} of {progress.topic} left"
    click.echo(f"\r\x1b[K{left}", nl=False, err=True)


def _ignore(_: "Progress") -> None:
    """For output that is not a terminal."""
