"""The options that find an instance, for every command the same."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import click

from nearline.settings.instance import Instance, read_instance
from nearline.settings.loading import instance_settings
from nearline.settings.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")

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
            type=click.Path(path_type=Path, file_okay=False),
            help="Where everything of an instance lies. Environment: NEARLINE_DATA_DIR; else ./.nearline.",
        ),
    ):
        command = option(command)
    return command


def instance_options(command: Callable[..., R]) -> Callable[..., R]:
    """For commands that talk to a running instance: `--data-dir` and `--config`, given to the function as
    `settings: Settings` (those that the instance runs with, where no --config is given) and `instance: InstanceReader`.

    Put it next to the function, below the other options.
    """

    @place_options
    @functools.wraps(command)
    def with_instance(*args: object, data_dir: Path | None, config: Path | None, **options: object) -> R:
        settings = instance_settings(config, data_dir)
        return command(*args, settings=settings, instance=_reader(settings), **options)

    return with_instance


def _reader(settings: Settings) -> InstanceReader:
    return functools.cache(lambda: read_instance(settings.data_dir))


def package_id_of(folder: Path) -> str:
    """What begins a generation's name, of the folder's."""
    letters = (letter if letter.isascii() and letter.isalnum() else "-" for letter in folder.resolve().name.lower())
    return "".join(letters).strip("-")[:64] or "package"
