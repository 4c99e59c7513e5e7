"""The embedded broker: Apache Kafka as one KRaft node on loopback, with its log in `DATA/kafka`.

Owns the folder, its ports and the Java process. Knows nothing of topics.
"""

import base64
import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Final

import msgspec
import psutil
import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from nearline import children
from nearline.broker.config import (
    broker_properties,
    fencing_log4j_properties,
    fencing_properties,
    log4j_properties,
)
from nearline.broker.jars import archive_file, ensure_jars
from nearline.errors import StartFailed
from nearline.ports import free_ports, is_free, listens
from nearline.settings.data_folder import make_data_folder

_START_S: Final = 180.0
"""A start takes some seconds. After a kill, on a machine whose cores all did something else, it took over a minute."""
_STOP_S: Final = 10.0
_SLOW_S: Final = 30.0
"""`launch_and_warn_if_slow` warns after this time."""
_ASK_EVERY_S: Final = 0.5

_LOG: Final = "log"
_TEMPORARY: Final = "tmp"
"""The broker's temporary folder, in its own folder."""
_HEAP: Final = ("-Xms256m", "-Xmx512m", "-XX:+AlwaysPreTouch")
"""256 MB from the start: a heap that began with 128 MB grew for an hour, until the histograms of Kafka's metrics had
filled up."""
_JVM: Final = (
    "-XX:+UseSerialGC",
    # Only the quick compiler of Java: the optimising one took up to half a core for minutes, and the broker was no
    # faster.
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    # Codecs unpack their native libraries into this folder. A killed broker would leave them in the machine's `/tmp`.
    f"-Djava.io.tmpdir={_TEMPORARY}",
)

log = structlog.get_logger(__name__)


class _Ports(Struct, frozen=True):
    port: int
    controller_port: int


class EmbeddedBroker:
    """The broker of one folder. `start` and `stop` may be called in turn any number of times, and another process than
    the one that started the broker may stop it. The ports stay the same, so that clients find the broker again,
    unless another process has taken one of them meanwhile."""

    def __init__(self, folder: Path, jvm: Sequence[str] = (), properties: Mapping[str, str] | None = None) -> None:
        """`jvm`: additional flags of the Java virtual machine. `properties`: additional properties of the broker. Both
        win over ours."""
        self.folder = folder.absolute()
        self._jvm = jvm
        self._extra_properties = properties or {}
        self._child: children.Child | None = None

    @property
    def bootstrap_servers(self) -> str:
        """The broker's address, also while it is down. Raises StartFailed if `prepare` was never called in this
        folder."""
        ports = self._read_ports()
        if ports is None:
            command = f"nearline broker start --data-dir {shlex.quote(str(self.folder.parent))}"
            raise StartFailed(f"no broker was ever started in {self.folder}; run: {command}")
        return f"127.0.0.1:{ports.port}"

    def start(self, *, dies_with_parent: bool = False) -> None:
        """Starts the broker if it does not run. Returns when it serves. Raises StartFailed."""
        if self.running() is None:
            self.prepare()
            self.format()
            self.launch(dies_with_parent=dies_with_parent)
        self.wait_ready()

    def stop(self, timeout_s: float = _STOP_S) -> bool:
        """Stops the broker, with kill -9 after `timeout_s`. Returns False if it did not run."""
        process = self.running()
        if process is not None:
            children.end(process, timeout_s)
            self._reap()
        self._pid_file.unlink(missing_ok=True)
        return process is not None

    def running(self) -> psutil.Process | None:
        """The process with the recorded pid, if it is still our broker; else None. If a broker ran in this folder
        before, the process is `fenced_start` first, which then replaces itself by Java and keeps the pid."""
        self._reap()
        if self._child is not None:
            return psutil.Process(self._child.pid)
        try:
            pid = int(self._pid_file.read_text())
        except (OSError, ValueError):
            return None
        return children.find(pid, lambda command: str(self._properties_file) in command)

    def serves(self) -> bool:
        """True when the broker runs, is not fenced and answers a request for metadata."""
        ports = self._read_ports()
        return ports is not None and listens(ports.port) and _answers(ports.port)

    def prepare(self) -> None:
        """Gets the jars, chooses ports and writes the configuration. What was done before is not done again; only the
        configuration is always written. Raises StartFailed, BadSettings."""
        find_java()
        ensure_jars()
        make_data_folder(self.folder)
        shutil.rmtree(self.folder / _TEMPORARY, ignore_errors=True)
        (self.folder / _TEMPORARY).mkdir(exist_ok=True)
        ports = self._choose_ports()
        self._properties_file.write_text(broker_properties(ports.port, ports.controller_port, self._extra_properties))
        self._log4j_file.write_text(log4j_properties())
        self._fencing_file.write_text(fencing_properties(ports.controller_port))
        self._fencing_log4j_file.write_text(fencing_log4j_properties())

    def format(self) -> None:
        """Formats the storage in a Java process of a second or two, unless that was done. Call `prepare` first. If this
        is interrupted, there is no `meta.properties` yet, and the next call formats the storage again. Raises
        StartFailed."""
        if (self.folder / _LOG / "meta.properties").exists():
            return
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # The option is written with "=", because an id may begin with "-".
        arguments = ("format", f"--cluster-id={cluster_id}", "-c", self._properties_file, "--ignore-formatted")
        command = self._command("kafka.tools.StorageTool", *arguments, jvm=())
        done = subprocess.run(command, env=_environment(), cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StartFailed(f"the broker's storage could not be formatted: {(done.stderr or done.stdout).strip()}")

    def launch(self, *, dies_with_parent: bool) -> children.Child:
        """Starts the Java process, without waiting until it serves. Call `prepare` and `format` first."""
        with (self.folder / "output.log").open("ab") as output:
            process = children.spawn(
                [
                    *self._fenced_start_command(),
                    *self._command("kafka.Kafka", self._properties_file, jvm=(*_HEAP, *self._jvm)),
                ],
                env=_environment(),
                cwd=self.folder,
                output=output,
                dies_with_parent=dies_with_parent,
            )
        self._child = process
        try:
            self._pid_file.write_text(str(process.pid))
        except OSError:
            # Without the file the next start would not find this process, and would start a second broker.
            process.kill()
            process.wait()
            raise
        return process

    def launch_and_warn_if_slow(self) -> children.Child:
        """Starts the Java process as a child that dies with this process, without waiting until it serves. If it does
        not serve in time, a thread logs one warning."""
        process = self.launch(dies_with_parent=True)
        Thread(target=self._warn_if_slow, args=(process,), name="slow-broker", daemon=True).start()
        return process

    def wait_ready(self, timeout_s: float = _START_S) -> None:
        """Returns when the broker serves. Raises StartFailed if it has ended or takes too long."""
        deadline = time.monotonic() + timeout_s
        while not self.serves():
            if self.running() is None:
                raise StartFailed(f"the broker ended; see server.log and output.log in {self.folder}")
            if time.monotonic() > deadline:
                raise StartFailed(
                    f"the broker does not serve after {timeout_s:.0f} s; see server.log and output.log in {self.folder}"
                )
            time.sleep(0.1)

    def _warn_if_slow(self, process: children.Child) -> None:
        slow_at = time.monotonic() + _SLOW_S
        while process.poll() is None and not self.serves():
            if time.monotonic() >= slow_at:
                # Kafka itself logs to server.log. `fenced_start` runs before Kafka and prints to output.log.
                output = self.folder / "output.log"
                log.warning(f"the broker does not serve after {_SLOW_S:.0f} s; what it waits for is in {output}")
                return
            time.sleep(_ASK_EVERY_S)

    def _reap(self) -> None:
        """Forgets the process that this object launched, if it has ended."""
        if self._child is not None and self._child.poll() is not None:
            self._child = None

    @property
    def _properties_file(self) -> Path:
        return self.folder / "server.properties"

    @property
    def _log4j_file(self) -> Path:
        return self.folder / "log4j2.properties"

    @property
    def _pid_file(self) -> Path:
        return self.folder / "broker.pid"

    @property
    def _ports_file(self) -> Path:
        return self.folder / "ports.json"

    @property
    def _fencing_file(self) -> Path:
        return self.folder / "fencing.properties"

    @property
    def _fencing_log4j_file(self) -> Path:
        return self.folder / "fencing-log4j2.properties"

    def _fenced_start_command(self) -> list[str]:
        """The part of the command before Java's. If a broker has run here before, `fenced_start` first makes a
        controller fence its old registration; `fenced_start.py` says why. Empty for a new folder."""
        ports = self._read_ports()
        if ports is None or not (self.folder / _LOG / "__cluster_metadata-0").exists():
            return []
        controller = self._command("kafka.Kafka", self._fencing_file, jvm=(), log4j_file=self._fencing_log4j_file)
        output = self.folder / "fencing.log"
        fenced_start = [sys.executable, "-m", "nearline.broker.fenced_start", str(output), str(ports.controller_port)]
        return [*fenced_start, *controller, "--"]

    def _command(
        self, main: str, *arguments: str | Path, jvm: Sequence[str], log4j_file: Path | None = None
    ) -> list[str]:
        java = find_java()
        archive = archive_file(java)
        class_archive = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []
        # The file's name without its folder: log4j would split a path at commas.
        log4j_option = f"-Dlog4j2.configurationFile={(log4j_file or self._log4j_file).name}"
        flags = (*_JVM, *class_archive, *jvm, log4j_option)
        return [str(java), *flags, "-cp", f"{ensure_jars()}/*", main, *map(str, arguments)]

    def _read_ports(self) -> _Ports | None:
        try:
            return msgspec.json.decode(self._ports_file.read_bytes(), type=_Ports)
        except (OSError, msgspec.DecodeError):
            return None

    def _choose_ports(self) -> _Ports:
        """The ports of the last start, or new ones if another process uses one of the two now."""
        ports = self._read_ports()
        if ports is None or not (is_free(ports.port) and is_free(ports.controller_port)):
            port, controller_port = free_ports(2)
            ports = _Ports(port, controller_port)
            self._ports_file.write_bytes(msgspec.json.encode(ports))
        return ports


def topic_folders(folder: Path, topics: Container[str]) -> list[Path]:
    """The folder of each partition of these topics, of the broker in `folder`; none where no broker was started."""
    return [path for path in (folder / _LOG).glob("*-*") if path.name.rpartition("-")[0] in topics]


def find_java() -> Path:
    """Raises StartFailed."""
    java = shutil.which("java")
    if java is None:
        raise StartFailed("the embedded broker needs Java; install Java 17 or newer, or set kafka.bootstrap_servers")
    return Path(java)


def _environment() -> dict[str, str]:
    """Our environment with a UTF-8 locale: in the C locale Java cannot open a path with letters beyond ASCII."""
    return {**os.environ, "LC_ALL": "C.UTF-8"}


def _answers(port: int) -> bool:
    """True if the broker answers, and its metadata names a broker. Metadata never names a fenced broker."""
    client = AdminClient({"bootstrap.servers": f"127.0.0.1:{port}", "log_level": 0})
    try:
        return bool(client.list_topics(timeout=2).brokers)
    except KafkaException:
        return False
