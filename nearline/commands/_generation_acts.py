"""The commands of `nearline generations` that change something: build, promote, rollback, retire."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import click

from nearline.commands._options import InstanceReader, NumberRange, instance_options
from nearline.commands._terminal import on_terminal, print_json
from nearline.settings.settings import Settings

if TYPE_CHECKING:
    from schemas.ids import Generation
    from streams.generations.acts import By
    from streams.generations.progress import Progress
    from streams.settings import KafkaSettings

_P = ParamSpec("_P")
_R = TypeVar("_R")

_BAR_CHARS: Final = 30


class Share(click.ParamType):
    """A part of the members, such as 5% or 0.05."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        try:
            return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            self.fail(f"{value!r} is no share; give one such as 5% or 0.05", param, ctx)


def act_options(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Adds `--reason` and `--by`, which stay in the history."""
    command = click.option("--by", metavar="NAME", help="Who does it; else this host and process.")(command)
    return click.option("--reason", metavar="T", help="Why; it stays in the history.")(command)


@click.command()
@click.argument("package")
@click.option("--registry", envvar="NEARLINE_REGISTRY", help="Where a published generation lies: a folder or a URL.")
@click.option("--rate", type=NumberRange(min=0, min_open=True), help="Contexts a second, for each encode process.")
@click.option("--force", is_flag=True, help="Also where a machine seems to have no room for it.")
@click.option("--wait", "waits", is_flag=True, help="Return when it is complete.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@act_options
@instance_options
def build(
    *,
    package: str,
    registry: str | None,
    rate: float | None,
    force: bool,
    waits: bool,
    as_json: bool,
    reason: str | None,
    by: str | None,
    settings: Settings,
    instance: InstanceReader,
) -> None:
    """Build a generation of PACKAGE beside the serving one, and print its id. A generation that was kept is retired.

    PACKAGE is a folder, or a generation that is published in the registry. Running the command again goes on. A machine
    that has no room for two generations (memory, disk, GPU) refuses, and says how much is missing.

    \b
    Example:
      nearline generations build my-package --wait
      nearline generations build my-package-0123abcd --registry s3://bucket/models --rate 200
    """
    from nearline import log
    from nearline.ask.connections import Connections
    from nearline.generations.retiring import remove_left_behind
    from nearline.up import operator_acts
    from streams.errors import StillFed

    log.configure("build", settings.log_level)
    connections, who = Connections(settings, instance), operator(by, reason)
    built = operator_acts.build(connections, package, registry, who, rate=rate, force=force)
    if as_json:
        print_json({"id": built})
    else:
        click.echo(built)
    try:
        remove_left_behind(settings, connections.kafka)
    except StillFed as error:
        click.echo(f"note: {error}", err=True)
    if waits:
        _wait(connections.kafka, built)


@click.command()
@click.argument("generation", metavar="G")
@click.option("--canary", "share", type=Share(), metavar="SHARE", help="Let it answer this share of the members alone.")
@click.option("--force", is_flag=True, help="Whatever its gate says; needs a reason.")
@act_options
@instance_options
def promote(
    *,
    generation: str,
    share: float | None,
    force: bool,
    reason: str | None,
    by: str | None,
    settings: Settings,
    instance: InstanceReader,
) -> None:
    """Let G answer the members. The generation that served is kept, as the way back.

    \b
    Example:
      nearline generations promote my-package-0123abcd --canary 5%
      nearline generations promote my-package-0123abcd
    """
    from nearline.ask.connections import Connections
    from nearline.up import operator_acts

    who, connections = operator(by, reason), Connections(settings, instance)
    click.echo(operator_acts.promote(connections, _id(generation), who, share=share, force=force))


@click.command()
@act_options
@instance_options
def rollback(*, reason: str | None, by: str | None, settings: Settings, instance: InstanceReader) -> None:
    """Undo the newest promotion: end the canary, or go back to the generation that is kept.

    \b
    Example:
      nearline generations rollback --reason "members see old posts"
    """
    from nearline.ask.connections import Connections
    from nearline.up import operator_acts

    who = operator(by, reason)
    click.echo(operator_acts.roll_back(Connections(settings, instance), who))


@click.command()
@click.argument("generation", metavar="G")
@click.option("--force", is_flag=True, help="Retire the way back within its day, too.")
@act_options
@instance_options
def retire(
    *,
    generation: str,
    force: bool,
    reason: str | None,
    by: str | None,
    settings: Settings,
    instance: InstanceReader,
) -> None:
    """Stop feeding G, and delete its groups, topics, collections and files. The serving one is never retired.

    Also deletes what a build of G has left that was killed before G was in the log.

    \b
    Example:
      nearline generations retire my-package-0123abcd
    """
    from nearline.generations.retiring import remove_retired, remove_unbuilt
    from streams.generations import acts
    from streams.generations.log import change_generations, read_generations

    kafka, who = kafka_of(settings, instance), operator(by, reason)
    is_known = _id(generation) in read_generations(kafka).records
    if not is_known and remove_unbuilt(settings, kafka, _id(generation)):
        click.echo(f"{generation} was never built, and nothing of it is left")
        return
    state = change_generations(kafka, lambda state: acts.retire(state, _id(generation), who, force=force))
    remove_retired(settings, kafka, state.records[_id(generation)])
    click.echo(f"{generation} is retired, and nothing of it is left")


def _wait(kafka: "KafkaSettings", generation: "Generation") -> None:
    from nearline.generations.building import wait_until_built

    try:
        record = wait_until_built(kafka, generation, _draw if on_terminal() else _ignore)
    finally:
        if on_terminal():
            click.echo("\r\x1b[K", nl=False, err=True)
    click.echo(f"{generation} is {record.state}", err=True)


def _draw(progress: "Progress | None") -> None:
    """A bar on stderr."""
    from nearline.commands._generation_views import progress_words

    share = 0.0 if progress is None else progress.share
    bar = "#" * int(share * _BAR_CHARS)
    words = "nobody answers now" if progress is None else progress_words(progress)
    click.echo(f"\r\x1b[K[{bar:<{_BAR_CHARS}}] {words}", nl=False, err=True)


def _ignore(_: "Progress | None") -> None:
    """For output that is not a terminal."""


def kafka_of(settings: Settings, instance: InstanceReader) -> "KafkaSettings":
    from nearline.ask.connections import Connections

    return Connections(settings, instance).kafka


def _id(generation: str) -> "Generation":
    from schemas.ids import Generation

    return Generation(generation)


def operator(name: str | None, reason: str | None) -> "By":
    """Raises click.UsageError for the name of the autopilot, which would take the act for its own."""
    from nearline.autopilot.acts import AUTOPILOT
    from streams.generations.acts import acting, this_process

    if name == AUTOPILOT:
        raise click.UsageError(f"--by: {AUTOPILOT} is the name of the autopilot; give yours")
    return acting(name or this_process(), reason)
