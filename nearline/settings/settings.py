"""What can be set: one frozen model for each component, nested into one.

Owns names, types, bounds and defaults. How the values are read and checked is `loading.py` beside this file. Importing
this stays cheap: every command does.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from contexts.settings import ContextRules
from indexer.settings import ColdSettings, HotSettings, url_such_as
from retriever.settings import ApiKey, ServeSettings
from streams.settings import (
    AutopilotSettings,
    ContextsSettings,
    EncodeSettings,
    GenerationsSettings,
    IndexSettings,
    KafkaSettings,
    TrendingSettings,
)

ENVIRONMENT_PREFIX: Final = "NEARLINE_"

_DEMO_PACKAGE: Final = Path(__file__).parent.parent / "demo" / "package"


def _named(path: Any) -> Any:
    """An empty name, such as an unset variable leaves behind, would mean the current folder."""
    if path == "":
        raise ValueError("it is empty; name a folder, or leave it out")
    return path


def _readable(path: Path) -> Path:
    """Refuses names that cannot be written into JSON or given to Java."""
    if not re.fullmatch("[^\0\ud800-\udfff]+", str(path)):
        raise ValueError("its name must be text in UTF-8")
    return path


class MonitorSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    host: str = "127.0.0.1"
    """The default is loopback: only this machine can connect."""
    port: int = Field(0, ge=0, le=65_535)
    """Of HTTP. 0 takes a free port, the same one until `nearline up` or `nearline run` ends."""
    url: Annotated[str | None, url_such_as("http://monitor:9308")] = None
    """Where `nearline status` and `nearline top` ask the monitor of a cluster, such as http://monitor:9308. None: they
    ask that of the data folder's `nearline up`."""
    canary_s: float = Field(10.0, ge=0, le=3600)
    """So often a post that nobody is shown is sent in, looked for, and deleted again. 0: never."""
    api_key: ApiKey | None = None
    """Of operators: what the operators' page is asked and told to do wants it. None: on loopback it wants
    `serve.api_key`; elsewhere nothing can be changed from the page."""
    api_key_file: Path | None = None
    """A file that holds the key, so that it stands neither in the settings file nor in the environment."""

    @property
    def own_url(self) -> str:
        """At which this machine reaches a monitor that has these settings."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


class TracesSettings(BaseModel):
    """Of OpenTelemetry."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: Annotated[str | None, url_such_as("http://collector:4318")] = None
    """Where a collector takes OTLP over HTTP, such as http://collector:4318. None: OTEL_EXPORTER_OTLP_ENDPOINT; without
    both nothing is traced."""


class RunSettings(BaseModel):
    """Of `nearline run`, so that a scheduler and Prometheus find every stage in the same way."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    """The default is loopback: only this machine can connect."""
    port: int | None = Field(None, ge=1, le=65_535)
    """Of HTTP: `/livez`, `/readyz`, and `/metrics` with those of the stage's processes. None: they are not served."""


class Settings(BaseModel):
    """Made in code it holds the defaults, and reads neither a file nor the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    data_dir: Annotated[Path, BeforeValidator(_named), AfterValidator(_readable)] = Path(".nearline")
    package: Path | None = None
    """The folder of the very first model package. None: the demo's. Which one serves later is in the log of the
    generations."""
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
    autopilot: AutopilotSettings = AutopilotSettings()
    monitor: MonitorSettings = MonitorSettings()
    run: RunSettings = RunSettings()
    traces: TracesSettings = TracesSettings()
    cold: ColdSettings = ColdSettings()
    hot: HotSettings = HotSettings()
    serve: ServeSettings = ServeSettings()

    @property
    def package_folder(self) -> Path:
        return self.package or _DEMO_PACKAGE
