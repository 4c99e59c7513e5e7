"""Reads settings: a TOML file, then the environment (`NEARLINE_*`, nested by `__`), then flags; the later one wins.

Owns the order of the sources, the sentence for a wrong key or value, and the file in which a running instance keeps its
settings for its child processes and for other commands. What can be set is `settings.py` beside this file.
"""

import functools
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, SecretStr, ValidationError

from nearline.errors import BadSettings, NotRunning
from nearline.settings.instance import read_instance
from nearline.settings.settings import ENVIRONMENT_PREFIX, MonitorSettings, Settings
from retriever.settings import ServeSettings
from schemas.files import write_whole

Layer = dict[str, Any]
"""Settings from one source, as nested plain data. A setting that the source does not name is absent."""

_OTHER_VARIABLES: Final = frozenset(("NEARLINE_CACHE_DIR", "NEARLINE_CONFIG", "NEARLINE_PORTS", "NEARLINE_REGISTRY"))
"""Read elsewhere, and no settings."""


def load_settings(config: Path | None = None, data_dir: Path | None = None, **flags: Any) -> Settings:
    """The settings of a new instance. A flag is named like its key with `__`, such as `serve__port`; None means that
    the flag was not given.

    Paths of the result are absolute. Raises BadSettings.
    """
    return _validated(_layers(config, {"data_dir": data_dir, **flags}))


def instance_settings(config: Path | None = None, data_dir: Path | None = None, **flags: Any) -> Settings:
    """For commands that talk to an instance. Without a configuration file they start from the settings that the running
    instance uses."""
    layers = _layers(config, {"data_dir": data_dir, **flags})
    if config is None:
        folder = Path(_merge_all(layers).get("data_dir", Settings.model_fields["data_dir"].default))
        layers = {"of the running instance": _read_running(folder), **layers}
    return _validated(layers)


def instance_settings_file(data_dir: Path) -> Path:
    """Of an instance. `nearline run` has files of its own."""
    return data_dir / "settings.json"


def write_settings(settings: Settings, file: Path) -> None:
    """For child processes and commands. Secrets included, readable by its owner alone. Whole or not at all."""
    content = json.dumps(settings.model_dump(mode="python"), default=_to_json, indent=1)
    write_whole(file, content.encode(), mode=0o600)


def read_settings(file: Path) -> Settings:
    """What `write_settings` wrote."""
    return _validated({f"of {file}": json.loads(file.read_bytes())})


def _read_running(data_dir: Path) -> Layer:
    """Empty where nothing runs. The file of an instance that was killed is ignored. The package is the one that serves
    now, which the settings need not name."""
    try:
        instance = read_instance(data_dir)
        layer: Layer = json.loads(instance_settings_file(data_dir).read_bytes())
        return {**layer, "package": instance.package}
    except (NotRunning, OSError):
        return {}


def _to_json(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _layers(config: Path | None, flags: Layer) -> dict[str, Layer]:
    """From the weakest to the strongest. The keys are the words that an error puts behind a setting's name."""
    return {
        f"in {config}": _read_file(config) if config is not None else {},
        "in the environment": _read_environment(),
        "as a flag": _nest(flags),
    }


def _validated(layers: Mapping[str, Layer]) -> Settings:
    try:
        return _resolve_files(Settings.model_validate(_merge_all(layers)))
    except ValidationError as error:
        raise BadSettings(_sentence(error, layers)) from None


def _resolve_files(settings: Settings) -> Settings:
    """Makes paths absolute, because child processes may run in another folder, and reads API keys from their files."""
    changes: Layer = {"data_dir": settings.data_dir.absolute()}
    if settings.cold.ca_file is not None:
        changes["cold"] = settings.cold.model_copy(update={"ca_file": settings.cold.ca_file.absolute()})
    if settings.package is not None:
        changes["package"] = settings.package.absolute()
    serve, monitor = settings.serve, settings.monitor
    files = {"certificate_file": serve.certificate_file, "private_key_file": serve.private_key_file}
    of_serve: Layer = {name: path and path.absolute() for name, path in {**files, "ca_file": serve.ca_file}.items()}
    changes["serve"] = serve.model_copy(update=of_serve | _key_of_file("serve", serve))
    changes["monitor"] = monitor.model_copy(update=_key_of_file("monitor", monitor))
    return settings.model_copy(update=changes)


def _key_of_file(section: str, settings: ServeSettings | MonitorSettings) -> Layer:
    """Empty where no file is to be read: a key that is given itself wins."""
    path = settings.api_key_file
    if settings.api_key is not None or path is None:
        return {}
    try:
        key = path.read_text().strip()
    except OSError as error:
        raise BadSettings(f"{section}.api_key_file: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadSettings(f"{section}.api_key_file: {path} is not text in UTF-8; write the key into it") from None
    if len(key.splitlines()) != 1:
        raise BadSettings(
            f"{section}.api_key_file: {path} is empty or has several lines; write the key into it, in one"
        )
    return {"api_key": SecretStr(key), "api_key_file": None}


def _read_file(path: Path) -> Layer:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise BadSettings(f"the configuration {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"the configuration {path} is not TOML: {error}") from None


def _read_environment() -> Layer:
    names = {name for name in os.environ if name.upper().startswith(ENVIRONMENT_PREFIX)} - _OTHER_VARIABLES
    for name in sorted(names):
        section = name[len(ENVIRONMENT_PREFIX) :].lower().partition("__")[0]
        if section not in Settings.model_fields:
            raise BadSettings(f"{name} in the environment names no setting; {_list_keys(Settings)}")
    if not names:
        return {}
    # pydantic-settings costs a third of a second to import: only where there is something for it to read.
    from nearline.settings.environment import read_environment

    return read_environment()


def _nest(flags: Mapping[str, Any]) -> Layer:
    layer: Layer = {}
    for name, value in flags.items():
        if value is not None:
            *sections, key = name.split("__")
            inner = layer
            for section in sections:
                inner = inner.setdefault(section, {})
            inner[key] = value
    return layer


def _merge_all(layers: Mapping[str, Layer]) -> Layer:
    return functools.reduce(_merge, layers.values(), {})


def _merge(weaker: Layer, stronger: Layer) -> Layer:
    merged = dict(weaker)
    for key, value in stronger.items():
        below = weaker.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _sentence(error: ValidationError, layers: Mapping[str, Layer]) -> str:
    """Names the key, its source and the mend. Never the value, which may be a secret."""
    first = error.errors(include_url=False, include_input=False)[0]
    path = tuple(str(part) for part in first["loc"])
    if "key" in first.get("ctx", {}):
        path = (*path, first["ctx"]["key"])  # the check of a whole section names the key that is wrong
    source = next((words for words, layer in reversed(list(layers.items())) if _holds(layer, path)), "")
    name = f"{'.'.join(path)} {source}".strip()
    if first["type"] == "extra_forbidden":
        return f"{name} is no setting; {_list_keys(_section(path))}"
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
    """The model of the section in which this key stands."""
    model: type[BaseModel] = Settings
    for part in path[:-1]:
        inner = model.model_fields[part].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        model = inner
    return model


def _list_keys(model: type[BaseModel]) -> str:
    return f"there are: {', '.join(model.model_fields)}"
