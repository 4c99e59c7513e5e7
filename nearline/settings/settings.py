"""All settings, nested: a TOML file, then the environment (`NEARLINE_*`, nested by `__`), then flags.

Checked at start; a wrong key or value ends the start with one sentence that names it. Secrets print as asterisks.
"""

import functools
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from contexts.settings import ContextRules
from indexer.settings import ColdSettings, HotSettings
from nearline.errors import BadSettings, NotRunning
from nearline.settings.instance import read_instance
from retriever.settings import ServeSettings
from schemas.files import write_whole
from streams.settings import ContextsSettings, EncodeSettings, IndexSettings, KafkaSettings, TrendingSettings

Layer = dict[str, Any]
"""Settings as nested plain data; what is not said is absent."""

PREFIX: Final = "NEARLINE_"
_OTHER_VARIABLES: Final = frozenset(("NEARLINE_CACHE_DIR", "NEARLINE_CONFIG", "NEARLINE_PORTS"))


def _readable(path: Path) -> Path:
    """JSON and Java take no other names."""
    if not re.fullmatch("[^\0\ud800-\udfff]+", str(path)):
        raise ValueError("its name must be text in UTF-8")
    return path


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Annotated[Path, AfterValidator(_readable)] = Path(".nearline")
    package: Path | None = None
    """The model package's folder. None: the demo's package."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    stalled_after_s: float = Field(60.0, ge=5)
    """A process whose stage has something to read, commits nothing for so long and is not at work is killed and
    started again. Longer than the calls to the broker may take: after those the process leaves by itself."""
    kafka: KafkaSettings = KafkaSettings()
    rules: ContextRules = ContextRules()
    contexts: ContextsSettings = ContextsSettings()
    trending: TrendingSettings = TrendingSettings()
    encode: EncodeSettings = EncodeSettings()
    index: IndexSettings = IndexSettings()
    cold: ColdSettings = ColdSettings()
    hot: HotSettings = HotSettings()
    serve: ServeSettings = ServeSettings()


def load_settings(config: Path | None = None, data_dir: Path | None = None, **flags: Any) -> Settings:
    """Of a new instance. A flag is named like its key with `__`, such as `serve__port`; None: it was not given.

    Paths of the result are absolute. Raises BadSettings.
    """
    return _checked(_layers(config, {"data_dir": data_dir, **flags}))


def instance_settings(config: Path | None = None, data_dir: Path | None = None, **flags: Any) -> Settings:
    """For commands that talk to an instance: without a file of their own they start from what it runs with."""
    layers = _layers(config, {"data_dir": data_dir, **flags})
    if config is None:
        folder = Path(_merged(layers).get("data_dir", Settings.model_fields["data_dir"].default))
        layers = {"of the running instance": _read_of_running(folder), **layers}
    return _checked(layers)


def write_for_children(settings: Settings) -> None:
    """Writes `DATA/settings.json`, secrets included, for the owner's eyes only. Whole or not at all."""
    content = json.dumps(settings.model_dump(mode="python"), default=_reveal, indent=1)
    write_whole(_children_file(settings.data_dir), content.encode(), mode=0o600)


def read_of_parent(data_dir: Path) -> Settings:
    """What `nearline up` wrote for its children."""
    return _checked({"of nearline up": _read_of_instance(data_dir)})


def forget_children(data_dir: Path) -> None:
    _children_file(data_dir).unlink(missing_ok=True)


def _children_file(data_dir: Path) -> Path:
    return data_dir / "settings.json"


def _read_of_running(data_dir: Path) -> Layer:
    """Empty where nothing runs: what a killed instance left behind counts no more."""
    try:
        read_instance(data_dir)
        return _read_of_instance(data_dir)
    except (NotRunning, OSError):
        return {}


def _read_of_instance(data_dir: Path) -> Layer:
    layer: Layer = json.loads(_children_file(data_dir).read_bytes())
    return layer


def _reveal(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _layers(config: Path | None, flags: Layer) -> dict[str, Layer]:
    """From the weakest to the strongest, each under the words that say where it is."""
    return {
        f"in {config}": _read_file(config) if config is not None else {},
        "in the environment": _read_environment(),
        "as a flag": _nested(flags),
    }


def _checked(layers: Mapping[str, Layer]) -> Settings:
    try:
        return _settled(Settings.model_validate(_merged(layers)))
    except ValidationError as error:
        raise BadSettings(_sentence(error, layers)) from None


def _settled(settings: Settings) -> Settings:
    """Absolute paths, so that processes with another working folder read the same; the key out of its file."""
    changes: Layer = {"data_dir": settings.data_dir.absolute()}
    if settings.cold.ca_file is not None:
        changes["cold"] = settings.cold.model_copy(update={"ca_file": settings.cold.ca_file.absolute()})
    if settings.package is not None:
        changes["package"] = settings.package.absolute()
    serve = settings.serve
    files = {"certificate_file": serve.certificate_file, "private_key_file": serve.private_key_file}
    of_serve: Layer = {name: path and path.absolute() for name, path in {**files, "ca_file": serve.ca_file}.items()}
    if serve.api_key is None and serve.api_key_file is not None:
        of_serve |= {"api_key": _read_key(serve.api_key_file), "api_key_file": None}
    return settings.model_copy(update={**changes, "serve": serve.model_copy(update=of_serve)})


def _read_key(path: Path) -> SecretStr:
    try:
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"serve.api_key_file: {path} cannot be read: {error}") from None
    if len(key.splitlines()) != 1:
        raise BadSettings(f"serve.api_key_file: {path} is empty or has several lines; write the key into it, in one")
    return SecretStr(key)


def _read_file(path: Path) -> Layer:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise BadSettings(f"the configuration {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"the configuration {path} is not TOML: {error}") from None


def _read_environment() -> Layer:
    names = {name for name in os.environ if name.upper().startswith(PREFIX)} - _OTHER_VARIABLES
    for name in sorted(names):
        section = name[len(PREFIX) :].lower().partition("__")[0]
        if section not in Settings.model_fields:
            raise BadSettings(f"{name} in the environment names no setting; {_known(Settings)}")
    if not names:
        return {}
    # pydantic-settings costs a third of a second to import: only where there is something for it to read.
    from nearline.settings.environment import read_environment

    return read_environment()


def _nested(flags: Mapping[str, Any]) -> Layer:
    layer: Layer = {}
    for name, value in flags.items():
        if value is not None:
            *sections, key = name.split("__")
            inner = layer
            for section in sections:
                inner = inner.setdefault(section, {})
            inner[key] = value
    return layer


def _merged(layers: Mapping[str, Layer]) -> Layer:
    return functools.reduce(_merge, layers.values(), {})


def _merge(under: Layer, over: Layer) -> Layer:
    merged = dict(under)
    for key, value in over.items():
        below = under.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _sentence(error: ValidationError, layers: Mapping[str, Layer]) -> str:
    """Names key, place and mend, and never the value: it may be a secret."""
    first = error.errors(include_url=False, include_input=False)[0]
    path = tuple(str(part) for part in first["loc"])
    if "key" in first.get("ctx", {}):
        path = (*path, first["ctx"]["key"])  # what is wrong with a section shows in one of its keys
    place = next((words for words, layer in reversed(list(layers.items())) if _holds(layer, path)), "")
    name = f"{'.'.join(path)} {place}".strip()
    if first["type"] == "extra_forbidden":
        return f"{name} is no setting; {_known(_section(path))}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{name} is wrong: {message[:1].lower()}{message[1:]}"


def _holds(layer: Layer, path: tuple[str, ...]) -> bool:
    inner: Any = layer
    for part in path:
        if not isinstance(inner, dict) or part not in inner:
            return False
        inner = inner[part]
    return True


def _section(path: tuple[str, ...]) -> type[BaseModel]:
    """The model that a wrong key was given to."""
    model: type[BaseModel] = Settings
    for part in path[:-1]:
        inner = model.model_fields[part].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        model = inner
    return model


def _known(model: type[BaseModel]) -> str:
    return f"there are: {', '.join(model.model_fields)}"
