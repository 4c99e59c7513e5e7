"""Looks at what a machine has and what answers, for `nearline doctor`. Changes nothing, and imports none of it."""

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


class Finding(NamedTuple):
    """`mend` is empty where nothing is to be done."""

    verdict: Literal["ok", "--", "no"]
    what: str
    found: str
    mend: str = ""


def everything(settings: Settings) -> list[Finding]:
    """What is installed comes first, then what answers."""
    own_broker = settings.kafka.bootstrap_servers is None
    return [
        _python(),
        _java(needed=own_broker),
        _maven(needed=own_broker),
        _jars(),
        *(_library(name) for name in _LIBRARIES),
        _faiss(),
        _gpu(),
        _data_folder(settings.data_dir),
        *_answers(settings),
    ]


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding(FINE, "Python", version)
    return Finding(MISSING, "Python", version, "use Python 3.11, 3.12 or 3.13")


def _java(needed: bool) -> Finding:
    java = shutil.which("java")
    if java is None:
        return Finding(MISSING if needed else ABSENT, "Java", "not found", _JAVA_MEND if needed else "")
    version = _java_version(_output([java, "-version"]))
    if version is not None and version >= _MIN_JAVA:
        return Finding(FINE, "Java", f"{version} ({java})")
    found = f"{version or 'of unknown version'} ({java})"
    return Finding(MISSING if needed else ABSENT, "Java", found, _JAVA_MEND if needed else "")


def _java_version(output: str) -> int | None:
    """`version "17.0.15"` is 17, and `version "1.8.0_392"` is 8."""
    match = re.search(r'version "(?:1\.)?(\d+)', output)
    return int(match[1]) if match else None


def _maven(needed: bool) -> Finding:
    from nearline.broker.jars import jars_folder

    maven = shutil.which("mvn")
    if maven is not None:
        return Finding(FINE, "Maven", maven)
    if jars_folder().is_dir() or not needed:
        return Finding(ABSENT, "Maven", "not found")
    return Finding(MISSING, "Maven", "not found", _MAVEN_MEND)


def _jars() -> Finding:
    from nearline.broker.jars import jars_folder

    folder = jars_folder()
    if folder.is_dir():
        return Finding(FINE, "Kafka jars", str(folder))
    return Finding(ABSENT, "Kafka jars", "not yet copied", "the first start of the embedded broker does it")


def _library(name: str) -> Finding:
    try:
        return Finding(FINE, name, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(MISSING, name, "not installed", "run: make setup")


def _faiss() -> Finding:
    found = [one for one in (_library("faiss-gpu"), _library("faiss-cpu")) if one.verdict == FINE]
    return found[0] if found else Finding(MISSING, "faiss", "not installed", "run: make setup")


def _gpu() -> Finding:
    tool = shutil.which("nvidia-smi")
    names = _output([tool, "--query-gpu=name", "--format=csv,noheader"]).splitlines() if tool else []
    if names and Path("/dev/nvidiactl").exists():
        return Finding(FINE, "GPU", ", ".join(names))
    return Finding(ABSENT, "GPU", "none; encoding and the hot tier run on the CPU")


def _data_folder(folder: Path) -> Finding:
    place = folder
    while not place.exists():
        place = place.parent
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        free_gb = shutil.disk_usage(place).free / 1e9
        return Finding(FINE, "data folder", f"{folder}, {free_gb:.0f} GB free")
    return Finding(MISSING, "data folder", f"{folder} cannot be written", "choose another with --data-dir")


def _answers(settings: Settings) -> list[Finding]:
    connections = Connections(settings, lambda: read_instance(settings.data_dir))
    return [
        _asked("broker", lambda: _ask_broker(connections)),
        _asked("retriever", lambda: _ask_retriever(connections)),
        _asked("cold tier", lambda: _ask_cold(connections)),
    ]


def _asked(what: str, ask: Callable[[], str]) -> Finding:
    try:
        return Finding(FINE, what, ask())
    except NotRunning as error:
        return Finding(ABSENT, what, str(error))
    except Exception as error:  # whatever it says, the other lines are printed too
        return Finding(MISSING, what, str(error), "see: nearline status")


def _ask_broker(connections: Connections) -> str:
    from streams.kafka.clients import admin, kafka_errors

    with kafka_errors():
        found = admin(connections.kafka).list_topics(timeout=_ANSWER_S)
    return f"{connections.kafka.bootstrap_servers}, {len(found.topics)} topics"


def _ask_retriever(connections: Connections) -> str:
    with connections.retriever(_ANSWER_S) as client:
        found = client.ready()
    return "ready" if found.ready else ", ".join(found.problems)


def _ask_cold(connections: Connections) -> str:
    from contextlib import closing

    with closing(connections.cold(_ANSWER_S)) as tier:
        return f"{tier.count('post')} posts, {tier.count('member')} members"


def _output(command: list[str]) -> str:
    """Of both streams; empty when it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr if done.returncode == 0 else ""
