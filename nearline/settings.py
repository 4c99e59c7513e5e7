"""All settings, nested: a TOML file, then the environment (`NEARLINE_*`, nested by `__`), then flags.

Checked at start; a wrong key or value ends the start with one sentence that names it.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from contexts.settings import ContextRules
from indexer.settings import ColdSettings, HotSettings
from nearline.errors import BadSettings
from retriever.settings import ServeSettings
from streams.settings import ContextsSettings, EncodeSettings, IndexSettings, KafkaSettings, TrendingSettings


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="NEARLINE_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        nested_model_default_partial_update=True,
    )

    data_dir: Path = Path(".nearline")
    package: Path | None = None
    """The model package's folder. None: the demo's package."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    kafka: KafkaSettings = KafkaSettings()
    rules: ContextRules = ContextRules()
    contexts: ContextsSettings = ContextsSettings()
    trending: TrendingSettings = TrendingSettings()
    encode: EncodeSettings = EncodeSettings()
    index: IndexSettings = IndexSettings()
    cold: ColdSettings = ColdSettings()
    hot: HotSettings = HotSettings()
    serve: ServeSettings = ServeSettings()

    _file: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Placeholder order; see load_settings.
        return (init_settings, env_settings)
