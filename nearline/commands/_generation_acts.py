"""The commands of `nearline generations` that change something: build, promote, rollback, retire."""

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import click

from nearline.commands._options import InstanceReader, instance_options
from nearline.commands._terminal import on_terminal, print_json
from nearline.settings.settings import Settings

if TYPE_CHECKING:
    from schemas.ids import Generation
    from streams.generations.acts import By
    from streams.generations.log import Decide
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
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Contexts a second, for each encode process.")
@click.option("--wait", "waits", is_flag=True, help="Return when it is complete.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@act_options
@instance_options
def build(
    *,
    package: str,
    registry: str | None,
    rate: float | None,
    waits: bool,
    as_json: bool,
    reason: str | None,
    by: str | None,
    settings: Settings,
    instance: InstanceReader,
) -> None:
    """Build a generation of PACKAGE beside the serving one, and print its id. A generation that was kept is retired.

    PACKAGE is a folder, or a generation that is published in the registry. Running the command again goes on.

    \b
    Example:
      nearline generations build my-package --wait
      nearline generations build my-package-0123abcd --registry s3://bucket/models --rate 200
    """
    from nearline import log
    from nearline.generations.building import find_package, name_package, start_building
    from nearline.generations.retiring import remove_left_behind
    from streams.errors import StillFed

    log.configure("build", settings.log_level)
    kafka, who = _kafka(settings, instance), operator(by, reason)
    remove_left_behind(settings, kafka, name_package(package, registry))
    found = find_package(package, registry, settings.data_dir)
    start_building(kafka, found, who, rate)
    if as_json:
        print_json({"id": found.id})
    else:
        click.echo(found.id)
    try:
        remove_left_behind(settings, kafka)
    except StillFed as error:
        click.echo(f"note: {error}", err=True)
    if waits:
        _wait(kafka, found.id)


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
    from streams.generations import acts

    who = operator(by, reason)
    _move(settings, instance, lambda state: acts.promote(state, _id(generation), who, share=share, force=force))


@click.command()
@act_options
@instance_options
def rollback(*, reason: str | None, by: str | None, settings: Settings, instance: InstanceReader) -> None:
    """Undo the newest promotion: end the canary, or go back to the generation that is kept.

    \b
    Example:
      nearline generations rollback --reason "members see old posts"
    """
    from streams.generations import acts

    who = operator(by, reason)
    _move(settings, instance, lambda state: acts.rollback(state, who))


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

    \b
    Example:
      nearline generations retire my-package-0123abcd
    """
    from nearline.generations.retiring import remove_retired
    from streams.generations import acts
    from streams.generations.log import change_generations

    kafka, who = _kafka(settings, instance), operator(by, reason)
    change_generations(kafka, lambda state: acts.retire(state, _id(generation), who, force=force))
    remove_retired(settings, kafka, _id(generation))
    click.echo(f"{generation} is retired, and nothing of it is left")


def _move(settings: Settings, instance: InstanceReader, decide: "Decide") -> None:
    """Moves the pointer, and says where it is."""
    from streams.generations.log import change_generations

    pointer = change_generations(_kafka(settings, instance), decide).pointer
    assert pointer is not None, "what moves it refuses where there is none"
    canary = pointer.canary
    click.echo(
        f"{pointer.serving} serves"
        + (f", {pointer.kept} is kept" if pointer.kept is not None else "")
        + (f", {canary.generation} answers {canary.share * 100:g} % of the members" if canary is not None else "")
    )


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


def _kafka(settings: Settings, instance: InstanceReader) -> "KafkaSettings":
    from nearline.ask.connections import Connections

    return Connections(settings, instance).kafka


def _id(generation: str) -> "Generation":
    from schemas.ids import Generation

    return Generation(generation)


def operator(name: str | None, reason: str | None) -> "By":
    from streams.generations.acts import acting

    return acting(name or f"{socket.gethostname()}:{os.getpid()}", reason)
