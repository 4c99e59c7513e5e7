"""What `nearline up` does: runs an instance, from the lock on its data folder to the end of its last process.

Owns the order in which processes are started and stopped, and the file `instance.json`. Does not know what runs inside
a process: that is in `nearline/up/build.py`.
"""

import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from encoders.package.model_package import ModelPackage
from nearline import children
from nearline.broker.embedded import EmbeddedBroker
from nearline.errors import NotRunning
from nearline.generations.packages import load_named_package, package_folder
from nearline.settings.data_folder import make_data_folder
from nearline.settings.folder_forms import agree_on_folder_forms
from nearline.settings.instance import (
    Instance,
    LivingHere,
    instance_file,
    locked,
    read_last_instance,
    write_instance,
)
from nearline.settings.loading import instance_settings_file, write_settings
from nearline.settings.settings import Settings
from nearline.up.build_monitor import with_named_port
from nearline.up.cold_socket import cold_socket, remove_cold_sockets
from nearline.up.failure_reports import failure_reports_folder
from nearline.up.metrics import targets_folder
from nearline.up.names import STAGES, all_names, serve_names
from nearline.up.retriever_probe import RetrieverProbes
from nearline.up.serve_ports import named_ports
from nearline.up.serving_package import ensure_core_topics, ensure_topics_of_live, serving_package, waiting_for_kafka
from nearline.up.stages import Stages, launcher
from nearline.up.start_checks import check_this_machine
from nearline.up.stop_signal import StopRequested, StopSignal
from nearline.up.supervisor import Part, Supervisor
from schemas.generations import GenerationRecord
from schemas.ids import Generation
from streams.generations.state import Generations
from streams.kafka.heartbeat import heartbeat_folder
from streams.kafka.options import check_for_embedded_broker, check_options

BROKER: Final = "broker"
PROCESS_MODULE: Final = "nearline.up.process"

_BROKER_GRACE_S: Final = 5.0
"""How long the broker has to stop. It stops after the stages, and all of it takes less than 20 s."""

_LOOK_EVERY_S: Final = 0.1
_LEFTOVER_GRACE_S: Final = 5.0

log = structlog.get_logger(__name__)


def run_up(settings: Settings, process_module: str = PROCESS_MODULE) -> None:
    """Runs an instance. Returns after SIGTERM or SIGINT, when every process has ended. Call it from the main thread.
    Each process is started as `python -m PROCESS_MODULE NAME DATA_DIR`.

    Raises NearlineError, PackageError, StreamsError, NewerForm, and what `check_this_machine` raises.
    """
    if settings.kafka.bootstrap_servers is None:
        check_for_embedded_broker(settings.kafka)
    check_options(settings.kafka)
    check_this_machine(settings, STAGES)
    make_data_folder(settings.data_dir)
    with locked(settings.data_dir):
        agree_on_folder_forms(settings.data_dir)
        # No process of an earlier run may be left: two processes that write into one folder would damage it.
        end_leftovers(settings.data_dir, process_module)
        # Loaded here for its errors too: they end the start before any process is started.
        package = load_named_package(settings)
        monitor = with_named_port(settings.monitor)
        with named_ports(settings.serve) as serve:
            named = settings.model_copy(update={"serve": serve, "monitor": monitor})
            Runtime(named, package, process_module).run()


class Runtime:
    """One `nearline up`. The caller holds the lock on the data folder."""

    def __init__(self, settings: Settings, named_package: ModelPackage | None, process_module: str) -> None:
        """`settings` must name all ports at which the retriever and the monitor will listen. `named_package` is the
        package that they name, if they do; which one is served is found out at the start."""
        self._named_package = named_package
        self._serving, self._package = Generation(""), Path()
        self._settings = settings
        self._process_module = process_module
        self._broker = None if settings.kafka.bootstrap_servers else EmbeddedBroker(settings.data_dir / "kafka")
        self._supervisor = Supervisor()
        self._stages: Stages | None = None
        self._state = Generations()
        self._living_here: dict[str, LivingHere] = {}
        """Made of `_state`."""
        self._probe = RetrieverProbes(settings.serve, serve_names(settings))
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self._written_instance: Instance | None = None
        self._can_write = True
        self._stop = StopSignal()

    def run(self) -> None:
        self._stop.listen()
        try:
            with self._stop.interrupting():
                self._stages = self._start()
            self._supervise(self._stages)
        except StopRequested:
            pass
        finally:
            self._drain()

    def _start(self) -> Stages:
        # 1. The broker, and the topics, which every stage expects to exist.
        if self._broker is not None:
            self._start_broker(self._broker)
        kafka = self._settings.kafka
        waiting_for_kafka(lambda: ensure_core_topics(kafka))
        # 2. The package, by the log of the generations.
        package = waiting_for_kafka(lambda: serving_package(self._settings, self._named_package))
        self._serving, self._package = package.generation, package.folder
        waiting_for_kafka(lambda: ensure_topics_of_live(kafka))
        # 3. What all other processes find when they start, in any order: one that needs another one waits for it.
        write_settings(self._settings, instance_settings_file(self._settings.data_dir))
        launch = launcher(self._settings, self._process_module)
        return Stages(self._settings, self._supervisor, launch, all_names(self._settings))

    def _start_broker(self, broker: EmbeddedBroker) -> None:
        log.info("starting the broker", folder=str(broker.folder))
        broker.prepare()
        with self._stop.deferred():
            # A signal while a process is made would leave a Java that nobody knows: the one that formats, or the broker
            # before the supervisor knows it.
            broker.format()
            self._supervisor.start(Part(BROKER, broker.launch_and_warn_if_slow))
        broker.wait_ready()
        kafka = self._settings.kafka.model_copy(update={"bootstrap_servers": broker.bootstrap_servers})
        self._settings = self._settings.model_copy(update={"kafka": kafka})

    def _supervise(self, stages: Stages) -> None:
        announced = False
        with stages.followed():
            while not self._stop.is_set:
                newest = stages.state
                state = newest or Generations()
                self._follow_serving(state.serving)
                stages.look(newest)
                self._probe.look()
                self._write_instance(state)
                if self._probe.ready and not announced:
                    announced = True
                    monitor = self._settings.monitor.own_url
                    log.info("ready", url=self._probe.url, grpc=self._probe.grpc, monitor=monitor)
                    # In one write: whoever reads the first line may read no other.
                    print(f"ready\nthe operators' page: {monitor}/", flush=True)
                time.sleep(_LOOK_EVERY_S)

    def _follow_serving(self, serving: GenerationRecord | None) -> None:
        """Tells commands when another generation serves. Processes follow the log themselves."""
        if serving is None or serving.id == self._serving:
            return
        log.info("another generation serves", generation=serving.id)
        self._serving = serving.id
        self._package = package_folder(serving, self._settings)

    def _write_instance(self, state: Generations) -> None:
        """Writes `instance.json` when its content has changed. On a full disk it is tried again until there is room."""
        instance = Instance(
            supervisor_pid=os.getpid(),
            bootstrap_servers=self._settings.kafka.bootstrap_servers or "",
            generation=self._serving,
            package=str(self._package),
            cold_socket=self._cold_socket(self._serving),
            url=self._probe.url if self._probe.listens else None,
            ready=self._probe.ready,
            processes=self._supervisor.processes,
            started_at=self._started_at,
            grpc=self._probe.grpc if self._probe.listens else None,
            places=self._places(state),
            workers=self._probe.worker_urls,
            monitor=self._settings.monitor.own_url,
        )
        if instance == self._written_instance:
            return
        try:
            write_instance(self._settings.data_dir, instance)
        except OSError as error:
            if self._can_write:
                log.warning("instance.json cannot be written; it is tried again until it can be", error=str(error))
            self._can_write = False
        else:
            self._written_instance, self._can_write = instance, True

    def _places(self, state: Generations) -> dict[str, LivingHere]:
        """Reads packages only when something has changed."""
        if state != self._state:
            self._state = state
            self._living_here = {str(record.place): self._living(record) for record in state.live}
        return self._living_here

    def _living(self, record: GenerationRecord) -> LivingHere:
        folder = package_folder(record, self._settings)
        return LivingHere(record.id, record.state, str(folder), self._cold_socket(record.id))

    def _cold_socket(self, generation: Generation) -> str | None:
        return None if self._settings.cold.url else str(cold_socket(self._settings.data_dir, generation))

    def _drain(self) -> None:
        log.info("draining")
        if self._stages is not None:
            self._stages.drain()
        self._supervisor.drain([BROKER], _BROKER_GRACE_S)
        _remove_runtime_files(self._settings.data_dir)
        log.info("stopped")


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
    return process_module in command and str(data_dir) in command


def _remove_runtime_files(data_dir: Path) -> None:
    instance_file(data_dir).unlink(missing_ok=True)
    instance_settings_file(data_dir).unlink(missing_ok=True)
    for folder in (targets_folder(data_dir), heartbeat_folder(data_dir), failure_reports_folder(data_dir)):
        shutil.rmtree(folder, ignore_errors=True)
    remove_cold_sockets(data_dir)
