"""What `nearline up` does: runs an instance, from the lock on its data folder to the end of its last process.

Owns the order in which processes are started and stopped, and the file `instance.json`. Does not know what runs inside
a process: that is in `nearline/up/build.py`.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final, TypeVar

import structlog

from encoders.package.model_package import ModelPackage
from nearline import children
from nearline.broker.embedded import EmbeddedBroker
from nearline.errors import NotRunning
from nearline.ports import free_ports, listening_port
from nearline.settings.data_folder import make_data_folder
from nearline.settings.instance import Instance, instance_file, locked, read_last_instance, write_instance
from nearline.settings.loading import remove_instance_settings, write_instance_settings
from nearline.settings.settings import Settings
from nearline.up.build import COLD, process_names
from nearline.up.cold_socket import cold_socket
from nearline.up.failure_reports import failure_report_of, failure_reports_folder
from nearline.up.metrics import targets_folder
from nearline.up.resources import child_environment
from nearline.up.retriever_probe import RetrieverProbe
from nearline.up.serving_package import serving_package
from nearline.up.stall_detector import StallDetector
from nearline.up.supervisor import Part, Supervisor
from retriever.http import tls
from retriever.settings import ServeSettings
from schemas.topics import TopicSpec, core_topics, generation_topics
from streams.errors import Fenced, KafkaUnavailable
from streams.kafka.closing_segments import close_segments
from streams.kafka.heartbeat import heartbeat_folder
from streams.kafka.node_id import node_id
from streams.kafka.options import check_for_embedded_broker, check_options
from streams.kafka.periodic import repeating
from streams.kafka.topics import ensure_topics

BROKER: Final = "broker"
PROCESS_MODULE: Final = "nearline.up.process"

# How long processes have to stop before they are killed; together under 20 s. The stages and the retriever stop first,
# then the process of the cold tier, which the retriever asks, and at last the broker.
_STAGES_GRACE_S: Final = 9.0
_COLD_GRACE_S: Final = 4.0
_BROKER_GRACE_S: Final = 5.0

_LOOK_EVERY_S: Final = 0.1
_LEFTOVER_GRACE_S: Final = 5.0

_T = TypeVar("_T")

log = structlog.get_logger(__name__)


class _Stopped(BaseException):
    """SIGTERM or SIGINT came while the instance was starting."""


def run_up(settings: Settings, process_module: str = PROCESS_MODULE) -> None:
    """Runs an instance. Returns after SIGTERM or SIGINT, when every process has ended. Call it from the main thread.
    Each process is started as `python -m PROCESS_MODULE NAME DATA_DIR`.

    Raises NearlineError, PackageError, StreamsError, BadCertificate.
    """
    check_options(settings.kafka)
    if settings.kafka.bootstrap_servers is None:
        check_for_embedded_broker(settings.kafka)
    make_data_folder(settings.data_dir)
    with locked(settings.data_dir):
        # No process of an earlier run may be left: two processes that write into one folder would damage it.
        end_leftovers(settings.data_dir, process_module)
        # Loaded here for its errors too: they end the start before any process is started.
        package = None if settings.package is None else ModelPackage.load(settings.package.absolute())
        # Called only for its errors: bad certificate files end the start here, before any process is started.
        tls.server_context(settings.serve)
        settings = settings.model_copy(update={"serve": with_ports(settings.serve)})
        Runtime(settings, package, process_module).run()


def with_ports(serve: ServeSettings) -> ServeSettings:
    """Names both ports, so that a restarted retriever listens where it did before. Raises StartFailed."""
    if serve.port == serve.port_of_grpc == 0:
        port, grpc_port = free_ports(2)
    else:
        port, grpc_port = (listening_port(serve.host, wanted) for wanted in (serve.port, serve.port_of_grpc))
    return serve.model_copy(update={"port": port, "grpc_port": grpc_port})


class Runtime:
    """One `nearline up`. The caller holds the lock on the data folder."""

    def __init__(self, settings: Settings, named_package: ModelPackage | None, process_module: str) -> None:
        """`settings` must name both ports at which the retriever will listen. `named_package` is the package that they
        name, if they do; which one is served is found out at the start."""
        self._named_package = named_package
        self._package: ModelPackage
        self._settings = settings
        self._process_module = process_module
        self._broker = None if settings.kafka.bootstrap_servers else EmbeddedBroker(settings.data_dir / "kafka")
        self._supervisor = Supervisor()
        self._probe = RetrieverProbe(settings.serve.host, settings.serve.port, settings.serve.certificate_file)
        self._grpc = self._probe.address(settings.serve.port_of_grpc)
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self._written_instance: Instance | None = None
        self._starting = True
        """While this is True a signal to stop raises _Stopped. Otherwise the signal only sets `_stop`."""
        self._stop = False

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        try:
            self._start()
            self._starting = False
            with repeating("closing segments", self._settings.kafka.erase_within_s / 8, self._close_segments):
                self._supervise()
        except _Stopped:
            pass
        finally:
            self._starting = False
            self._drain()

    def _start(self) -> None:
        # 1. The broker, and the topics, which every stage expects to exist.
        if self._broker is not None:
            self._start_broker(self._broker)
        self._ensure_topics(core_topics())
        # 2. The package, by the log of the generations. Every other process takes it from the settings.
        self._package = self._waiting_for_kafka(lambda: serving_package(self._settings, self._named_package))
        self._settings = self._settings.model_copy(update={"package": self._package.folder})
        write_instance_settings(self._settings)
        self._ensure_topics(generation_topics(self._package.generation))
        # 3. All other processes, in any order. A process that needs another one waits for it.
        for name in process_names(self._settings):
            self._start_part(Part(name, self._launcher(name), failure_report_of(self._settings.data_dir, name)))
        self._write_instance()

    def _start_part(self, part: Part) -> None:
        """A signal that comes meanwhile takes effect only when the supervisor knows the part, and so can end it."""
        self._starting = False
        self._supervisor.start(part)
        self._starting = True
        if self._stop:
            raise _Stopped

    def _start_broker(self, broker: EmbeddedBroker) -> None:
        log.info("starting the broker", folder=str(broker.folder))
        broker.prepare()
        self._start_part(Part(BROKER, broker.launch_and_warn_if_slow))
        broker.wait_ready()
        kafka = self._settings.kafka.model_copy(update={"bootstrap_servers": broker.bootstrap_servers})
        self._settings = self._settings.model_copy(update={"kafka": kafka})

    def _ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Creates the missing topics."""
        self._waiting_for_kafka(lambda: ensure_topics(self._settings.kafka, specs))

    def _waiting_for_kafka(self, ask: Callable[[], _T]) -> _T:
        """Waits as long as it takes for a broker that somebody else starts. Any other error ends the start."""
        while True:
            try:
                return ask()
            except (KafkaUnavailable, Fenced) as error:
                log.warning("waiting for Kafka", error=str(error))
                time.sleep(1)

    def _close_segments(self) -> None:
        specs = (*core_topics(), *generation_topics(self._package.generation))
        close_segments(self._settings.kafka, specs, f"segments.{node_id(self._settings.data_dir)}")

    def _launcher(self, name: str) -> Callable[[], children.Child]:
        # The process reads its settings from a file. Everybody can read the command line, so it holds no secrets.
        command = [sys.executable, "-m", self._process_module, name, str(self._settings.data_dir)]
        return lambda: children.spawn(command, env=child_environment(name, self._settings), dies_with_parent=True)

    def _supervise(self) -> None:
        log.info("started", processes=[process.name for process in self._supervisor.processes])
        announced = False
        detector = StallDetector(
            self._settings.kafka, self._package.generation, self._settings.data_dir, self._settings.stalled_after_s
        )
        detector.start()
        while not self._stop:
            self._supervisor.look()
            self._probe.look()
            self._kill_stalled(detector)
            self._write_instance()
            if self._probe.ready and not announced:
                announced = True
                log.info("ready", url=self._probe.url, grpc=self._grpc)
                print("ready", flush=True)
            time.sleep(_LOOK_EVERY_S)
        detector.close()

    def _kill_stalled(self, detector: StallDetector) -> None:
        for name in detector.stalled_names(self._supervisor.processes):
            log.warning("a process stands still and is killed", part=name, after_s=self._settings.stalled_after_s)
            self._supervisor.kill(name)

    def _write_instance(self) -> None:
        """Writes `instance.json` when its content has changed."""
        instance = Instance(
            supervisor_pid=os.getpid(),
            bootstrap_servers=self._settings.kafka.bootstrap_servers or "",
            generation=self._package.generation,
            package=str(self._package.folder),
            cold_socket=None if self._settings.cold.url else str(cold_socket(self._settings.data_dir)),
            url=self._probe.url if self._probe.listens else None,
            ready=self._probe.ready,
            processes=self._supervisor.processes,
            started_at=self._started_at,
            grpc=self._grpc if self._probe.listens else None,
        )
        if instance != self._written_instance:
            write_instance(self._settings.data_dir, instance)
            self._written_instance = instance

    def _drain(self) -> None:
        log.info("draining")
        names = [process.name for process in self._supervisor.processes]
        self._supervisor.drain([name for name in names if name not in (COLD, BROKER)], _STAGES_GRACE_S)
        self._supervisor.drain([COLD], _COLD_GRACE_S)
        self._supervisor.drain([BROKER], _BROKER_GRACE_S)
        _remove_runtime_files(self._settings.data_dir)
        log.info("stopped")

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        self._stop = True
        if self._starting:
            # Interrupts whatever the start is waiting for.
            self._starting = False
            raise _Stopped


def end_leftovers(data_dir: Path, process_module: str) -> None:
    """Ends the processes of a killed `nearline up` that still run. They die with it, but that takes a moment."""
    EmbeddedBroker(data_dir / "kafka").stop()
    try:
        last_processes = read_last_instance(data_dir).processes
    except NotRunning:
        last_processes = []
    for info in last_processes:
        process = info.pid and children.find(info.pid, lambda command: _is_child(command, process_module, data_dir))
        if process:
            log.warning("ending a process of the last run", part=info.name, pid=info.pid)
            children.end(process, _LEFTOVER_GRACE_S)
    _remove_runtime_files(data_dir)


def _is_child(command: list[str], process_module: str, data_dir: Path) -> bool:
    return process_module in command and command[-1:] == [str(data_dir)]


def _remove_runtime_files(data_dir: Path) -> None:
    instance_file(data_dir).unlink(missing_ok=True)
    remove_instance_settings(data_dir)
    for folder in (targets_folder(data_dir), heartbeat_folder(data_dir), failure_reports_folder(data_dir)):
        shutil.rmtree(folder, ignore_errors=True)
    socket_file = cold_socket(data_dir)
    socket_file.unlink(missing_ok=True)
    if socket_file.parent != data_dir:
        # The socket is in a folder among the temporary files. If that holds sockets of other instances, it stays.
        with suppress(OSError):
            socket_file.parent.rmdir()
