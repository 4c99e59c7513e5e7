"""The options by which every command finds an instance: `--data-dir` and `--config`."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from nearline.settings.instance import Instance, read_instance
from nearline.settings.loading import instance_settings
from nearline.settings.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")


class EntityId(click.ParamType):
    """The id of a post or member. Ids are UTF-8 everywhere, but a terminal can pass any bytes."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            str(value).encode()
        except UnicodeEncodeError:
            self.fail(f"{value!r} is not UTF-8, so nothing has this id", param, ctx)
        return str(value)


class NumberRange(click.FloatRange):
    """A range of floats that refuses `nan`, which click finds in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not a number", param, ctx)
        return number


class OutputFile(click.Path):
    """A file that a command writes when its work is done. That its folder is missing is said before the work."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        file = super().convert(value, param, ctx)
        assert isinstance(file, Path), "as path_type says"
        if not file.absolute().parent.is_dir():
            self.fail(f"there is no folder {file.parent}; make it, or name a file elsewhere", param, ctx)
        return file


class _DataFolder(click.Path):
    """Refuses an empty name, such as an unset variable leaves behind: it would mean the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty; name a folder, or leave it out", param, ctx)
        return super().convert(value, param, ctx)


def checked_device(_: click.Context, __: click.Parameter, name: str) -> str:
    """The callback of an option: refuses a device that this machine does not have, before anything is loaded."""
    from indexer.devices import check_name, check_presence
    from indexer.errors import NoSuchDevice

    try:
        check_name(name)
        check_presence("--device", name)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    except NoSuchDevice as error:
        raise click.UsageError(str(error)) from None
    return name


InstanceReader = Callable[[], Instance]
"""Reads `DATA/instance.json` at the first call. Raises NotRunning."""


def place_options(command: Callable[P, R]) -> Callable[P, R]:
    """Adds `--data-dir` and `--config`, given to the function as `data_dir` and `config`."""
    for option in (
        click.option(
            "--config",
            type=click.Path(path_type=Path, dir_okay=False),
            envvar="NEARLINE_CONFIG",
            help="Settings in TOML. Environment: NEARLINE_CONFIG.",
        ),
        click.option(
            "--data-dir",
            type=_DataFolder(path_type=Path, file_okay=False),
            help="Where everything of an instance lies. Environment: NEARLINE_DATA_DIR; else ./.nearline.",
        ),
    ):
        command = option(command)
    return command


def instance_options(command: Callable[..., R]) -> Callable[..., R]:
    """For commands that talk to a running instance: adds `--data-dir` and `--config`, given to the function as
    `settings: Settings` and `instance: InstanceReader`. Without `--config` the settings are those that the instance
    runs with.

    Put it directly above the function, below the other options.
    """

    @place_options
    @functools.wraps(command)
    def with_instance(*args: object, data_dir: Path | None, config: Path | None, **options: object) -> R:
        # Imported here: `--help` needs no log.
        from nearline import log

        settings = instance_settings(config, data_dir)
        log.configure_command(settings.log_level)
        return command(*args, settings=settings, instance=_reader(settings), **options)

    return with_instance


def _reader(settings: Settings) -> InstanceReader:
    return functools.cache(lambda: read_instance(settings.data_dir))


def package_id_of(folder: Path) -> str:
    """The first part of a generation's name, made of the folder's name."""
    letters = (letter if letter.isascii() and letter.isalnum() else "-" for letter in folder.resolve().name.lower())
    return "".join(letters).strip("-")[:64] or "package"
