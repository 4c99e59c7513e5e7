"""Reads `NEARLINE_*` with pydantic-settings, which takes long to import: so not in `settings.py` beside this file."""

import os
from typing import Any

from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, SettingsError

from nearline.errors import BadSettings
from nearline.settings.settings import PREFIX, Settings


class _Environment(Settings, BaseSettings):
    """Never made: it tells the source below what there is to read."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)


def read_environment() -> dict[str, Any]:
    """Nested by `__`; a section may also be one value in JSON. Values are checked later. Raises BadSettings."""
    try:
        return EnvSettingsSource(_Environment)()
    except SettingsError as error:
        section = PREFIX + str(error).partition('"')[2].partition('"')[0].upper()
        names = [name for name in os.environ if name.upper().partition("__")[0] == section]
        raise BadSettings(
            f"{' or '.join(sorted(names))} in the environment is not JSON; write {{...}} or one value a key"
        ) from None
