"""Reads `NEARLINE_*` with pydantic-settings. Its own file, because that library takes a third of a second to import."""

import os
from typing import Any

from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, SettingsError

from nearline.errors import BadSettings
from nearline.settings.settings import ENVIRONMENT_PREFIX, Settings


class _EnvironmentSettings(Settings, BaseSettings):
    """Never instantiated: it only tells `EnvSettingsSource` which variables there are."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )


def read_environment() -> dict[str, Any]:
    """Nested by `__`; a whole section may also be given as JSON. Values are not checked here. Raises BadSettings."""
    try:
        return EnvSettingsSource(_EnvironmentSettings)()
    except SettingsError as error:
        section = ENVIRONMENT_PREFIX + str(error).partition('"')[2].partition('"')[0].upper()
        names = [name for name in os.environ if name.upper().partition("__")[0] == section]
        raise BadSettings(
            f"{' or '.join(sorted(names))} in the environment is not JSON; write {{...}} or one value a key"
        ) from None
