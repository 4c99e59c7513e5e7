"""What can be set: one frozen model for each component, nested into one.

Owns names, types, bounds and defaults. How the values are read and checked is `loading.py` beside this file. Importing
this stays cheap: every command does.
"""

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from contexts.settings import ContextRules
from indexer.settings import ColdSettings, HotSettings
from retriever.settings import ServeSettings
from streams.settings import (
    ContextsSettings,
    EncodeSettings,
    GenerationsSettings,
    IndexSettings,
    KafkaSettings,
    TrendingSettings,
)

ENVIRONMENT_PREFIX: Final = "NEARLINE_"

_DEMO_PACKAGE: Final = Path(__file__).parent.parent / "demo" / "package"


def _readable(path: Path) -> Path:
    """Refuses names that cannot be written into JSON or given to Java."""
    if not re.fullmatch("[^\0\ud800-\udfff]+", str(path)):
        raise ValueError("its name must be text in UTF-8")
    return path


class Settings(BaseModel):
    """Made in code it holds the defaults, and reads neither a file nor the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Annotated[Path, AfterValidator(_readable)] = Path(".nearline")
    package: Path | None = None
    """The model package's folder. None: the demo's package."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    stalled_after_s: float = Field(60.0, ge=5)
    """A process is killed and started again if its stage has records to read, but for this long commits none and does
    not report that it is working. This is longer than any call to the broker may take: after a failed call a process
    ends by itself."""
    kafka: KafkaSettings = KafkaSettings()
    rules: ContextRules = ContextRules()
    contexts: ContextsSettings = ContextsSettings()
    trending: TrendingSettings = TrendingSettings()
    encode: EncodeSettings = EncodeSettings()
    index: IndexSettings = IndexSettings()
    generations: GenerationsSettings = GenerationsSettings()
    cold: ColdSettings = ColdSettings()
    hot: HotSettings = HotSettings()
    serve: ServeSettings = ServeSettings()

    @property
    def package_folder(self) -> Path:
        return self.package or _DEMO_PACKAGE
