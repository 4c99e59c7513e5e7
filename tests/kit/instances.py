"""Instances for tests: `nearline up` as a user starts it, and one without stages for tests of commands."""

import http.client
import os
import signal
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import psutil

from indexer.cold.socket.server import ColdServer
from indexer.freshness import FreshnessWindow
from nearline.errors import NotRunning
from nearline.settings.instance import Instance, ProcessInfo, locked, read_instance, write_instance
from tests.kit.data.embeddings import GENERATION
from tests.kit.folders import temporary_data
from tests.kit.retrievers import RetrieverSetup, Served
from tests.kit.waiting import until

_STAGE = "nearline.up.process"
"""The module that every process of a stage runs. Its name is the next word."""
START_S = 300.0
"""Loading torch and transformers twice takes ten seconds on two idle cores, and minutes on busy cores."""


class Up:
    """A process of `nearline up`."""

    def __init__(
        self, data_dir: Path, package: Path | None, environment: Mapping[str, str], arguments: Sequence[str]
    ) -> None:
        self.data_dir = data_dir
        self._log = (data_dir.parent / "up.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nearline", "up", *self._arguments(package), *arguments],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            # No canaries unless a test asks for them: others count what they have sent.
            env={**os.environ, "NEARLINE_MONITOR__CANARY_S": "0", **environment},
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def instance(self) -> Instance:
        return read_instance(self.data_dir)

    def wait_ready(self) -> None:
        """Waits for the line `ready` on stdout, and the address of the operators' page after it."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line == "ready\n", f"up printed {line!r}; its log ends with:\n{self.log()[-3000:]}"
        assert self._process.stdout.readline() == f"the operators' page: {self.instance.monitor}/\n"

    def wait_serving(self) -> None:
        """Waits until every process runs and the retriever says that it is ready."""
        until(self._serves, f"all of it to serve; the log ends with:\n{self.log()[-3000:]}", START_S, 0.2)

    def wait_starting(self) -> None:
        until(lambda: "starting the broker" in self.log(), "up to start its broker", START_S, 0.2)

    def stop(self) -> int:
        """Sends SIGTERM and returns the exit status. Fails if the end takes longer than 20 s."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(20)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        if self._process.poll() is None:
            self.stop()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()

    def log(self) -> str:
        return Path(self._log.name).read_text()

    def _arguments(self, package: Path | None) -> list[str]:
        named = [] if package is None else ["--package", str(package)]
        return ["--data-dir", str(self.data_dir), *named, "--port", "0"]

    def _serves(self) -> bool:
        try:
            instance = self.instance
        except NotRunning:
            return False
        running = all(process.pid is not None and psutil.pid_exists(process.pid) for process in instance.processes)
        return running and instance.url is not None and _is_ready(instance.url)


@contextmanager
def up(
    data_dir: Path, package: Path | None, environment: Mapping[str, str] | None = None, arguments: Sequence[str] = ()
) -> Iterator[Up]:
    running = Up(data_dir, package, environment or {}, arguments)
    try:
        yield running
    finally:
        running.close()


@contextmanager
def data_folder() -> Iterator[Path]:
    """A folder that is removed afterwards."""
    with temporary_data("nearline-up-") as folder:
        yield folder / "räume, 2"


def processes_of(data_dir: Path) -> list[psutil.Process]:
    """Every live process that names this data folder on its command line."""
    processes = []
    for process in psutil.process_iter():
        try:
            if any(str(data_dir) in word for word in process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
        except psutil.Error:
            continue
    return processes


def stage_processes(data_dir: Path) -> dict[str, psutil.Process]:
    """The live processes of stages, by name."""
    stages = {}
    for process in processes_of(data_dir):
        with suppress(psutil.Error):  # it ends at this moment
            words = process.cmdline()
            if _STAGE in words:
                stages[words[words.index(_STAGE) + 1]] = process
    return stages


def _is_ready(url: str) -> bool:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=2)
    if address.scheme == "https":
        anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(str(address.hostname), address.port, timeout=2, context=anyone)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


NO_BROKER = "127.0.0.1:1"
"""An address at which no broker listens."""


class InstanceWithoutStages(NamedTuple):
    """A retriever over plain tiers, its cold tier on a socket, and `instance.json`: all that commands ask for."""

    data_dir: Path
    retriever: RetrieverSetup
    instance: Instance

    def rewrite(self, **changes: Any) -> None:
        """Writes `instance.json` again with these fields changed."""
        write_instance(self.data_dir, msgspec.structs.replace(self.instance, **changes))


@contextmanager
def instance_without_stages(bootstrap_servers: str = NO_BROKER) -> Iterator[InstanceWithoutStages]:
    retriever = RetrieverSetup()
    freshness = FreshnessWindow()
    freshness.add([0.5, 0.5])
    with ExitStack() as stack:
        # A short path: that of a socket may have about a hundred characters.
        data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nearline-instance-")))
        served = stack.enter_context(Served(retriever))
        socket = data_dir / "cold.sock"
        server = stack.enter_context(closing(ColdServer(retriever.cold, socket, freshness)))
        server.start()
        instance = Instance(
            supervisor_pid=os.getpid(),
            bootstrap_servers=bootstrap_servers,
            generation=GENERATION,
            package="",
            cold_socket=str(socket),
            url=served.url,
            ready=True,
            processes=[ProcessInfo("broker", 1, 0), ProcessInfo("serve", 2, 3)],
            started_at="2026-01-05T10:00:00Z",
            grpc=served.grpc,
        )
        stack.enter_context(locked(data_dir))
        write_instance(data_dir, instance)
        yield InstanceWithoutStages(data_dir, retriever, instance)
