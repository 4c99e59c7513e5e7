"""The checks of `nearline doctor`: what this machine has, and which parts of the instance answer.

Changes nothing, and imports none of the large libraries that it looks for.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Final, Literal, NamedTuple

from nearline.ask.connections import Connections
from nearline.errors import NotRunning
from nearline.settings.instance import read_instance
from nearline.settings.settings import Settings

FINE: Final = "ok"
ABSENT: Final = "--"
MISSING: Final = "no"

_MIN_JAVA: Final = 17
_ANSWER_S: Final = 2.0
_LIBRARIES: Final = (
    "confluent-kafka",
    "rocksdict",
    "faust-streaming",
    "qdrant-edge-py",
    "qdrant-client",
    "torch",
    "transformers",
)
_MAVEN_MEND: Final = "install Maven 3.6 or newer, or configure a broker: kafka.bootstrap_servers"
_JAVA_MEND: Final = "install a Java runtime 17 or newer, or configure a broker: kafka.bootstrap_servers"


class Check(NamedTuple):
    """The result for one subject. `mend` is empty where nothing is to be done."""

    state: Literal["ok", "--", "no"]
    subject: str
    detail: str
    mend: str = ""


def run_checks(settings: Settings) -> list[Check]:
    """First what is installed, then what answers."""
    is_embedded = settings.kafka.bootstrap_servers is None
    return [
        _python(),
        _java(needed=is_embedded),
        _maven(needed=is_embedded),
        _jars(),
        *(_library(name) for name in _LIBRARIES),
        _gpu(),
        _data_folder(settings.data_dir),
        *_answers(settings),
    ]


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Check(FINE, "Python", version)
    return Check(MISSING, "Python", version, "use Python 3.11, 3.12 or 3.13")


def _java(needed: bool) -> Check:
    java = shutil.which("java")
    if java is None:
        return Check(MISSING if needed else ABSENT, "Java", "not found", _JAVA_MEND if needed else "")
    version = _java_version(_output([java, "-version"]))
    if version is not None and version >= _MIN_JAVA:
        return Check(FINE, "Java", f"{version} ({java})")
    detail = f"{version or 'of unknown version'} ({java})"
    return Check(MISSING if needed else ABSENT, "Java", detail, _JAVA_MEND if needed else "")


def _java_version(output: str) -> int | None:
    """The major version: 17 in `version "17.0.15"`, and 8 in `version "1.8.0_392"`."""
    match = re.search(r'version "(?:1\.)?(\d+)', output)
    return int(match[1]) if match else None


def _maven(needed: bool) -> Check:
    from nearline.broker.jars import jars_folder

    maven = shutil.which("mvn")
    if maven is not None:
        return Check(FINE, "Maven", maven)
    if jars_folder().is_dir() or not needed:
        return Check(ABSENT, "Maven", "not found")
    return Check(MISSING, "Maven", "not found", _MAVEN_MEND)


def _jars() -> Check:
    from nearline.broker.jars import jars_folder

    folder = jars_folder()
    if folder.is_dir():
        return Check(FINE, "Kafka jars", str(folder))
    return Check(ABSENT, "Kafka jars", "not yet copied", "the first start of the embedded broker does it")


def _library(name: str) -> Check:
    try:
        return Check(FINE, name, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Check(MISSING, name, "not installed", "run: make setup")


def _gpu() -> Check:
    tool = shutil.which("nvidia-smi")
    names = _output([tool, "--query-gpu=name", "--format=csv,noheader"]).splitlines() if tool else []
    if names and Path("/dev/nvidiactl").exists():
        return Check(FINE, "GPU", ", ".join(names))
    return Check(ABSENT, "GPU", "none; encoding and the hot tier run on the CPU")


def _data_folder(folder: Path) -> Check:
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        free_gb = shutil.disk_usage(existing).free / 1e9
        return Check(FINE, "data folder", f"{folder}, {free_gb:.0f} GB free")
    return Check(MISSING, "data folder", f"{folder} cannot be written", "choose another with --data-dir")


def _answers(settings: Settings) -> list[Check]:
    connections = Connections(settings, lambda: read_instance(settings.data_dir))
    return [
        _answer("broker", lambda: _ask_broker(connections)),
        _answer("retriever", lambda: _ask_retriever(connections)),
        _answer("cold tier", lambda: _ask_cold(connections)),
    ]


def _answer(part: str, ask: Callable[[], str]) -> Check:
    try:
        return Check(FINE, part, ask())
    except NotRunning as error:
        return Check(ABSENT, part, str(error))
    except Exception as error:  # whatever goes wrong with one part, the other checks are printed too
        return Check(MISSING, part, str(error), "see: nearline status")


def _ask_broker(connections: Connections) -> str:
    from streams.kafka.clients import admin
    from streams.kafka.kafka_errors import kafka_errors

    with kafka_errors():
        metadata = admin(connections.kafka).list_topics(timeout=_ANSWER_S)
    return f"{connections.kafka.bootstrap_servers}, {len(metadata.topics)} topics"


def _ask_retriever(connections: Connections) -> str:
    from nearline.ask.hot_reports import ask_all

    readiness = ask_all(connections.retrievers(_ANSWER_S)).readiness
    return "ready" if readiness.ready else ", ".join(readiness.problems)


def _ask_cold(connections: Connections) -> str:
    from contextlib import closing

    with closing(connections.cold(_ANSWER_S)) as tier:
        return f"{tier.count('post')} posts, {tier.count('member')} members"


def _output(command: list[str]) -> str:
    """What the command prints on stdout and stderr. Empty when it cannot be run or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr if done.returncode == 0 else ""
