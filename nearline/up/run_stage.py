"""What `nearline run` does: keeps the processes of one stage running on this machine, from settings alone.

It is `nearline up` without a broker and without the other stages, which run elsewhere: the same processes, followed and
restarted in the same way. Several may share a data folder, one for each process, such as the retriever and the embedded
cold tier that it asks.
"""

import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import structlog

from encoders.package.model_package import ModelPackage
from nearline.errors import BadSettings
from nearline.generations.packages import load_named_package
from nearline.ports import listening_port
from nearline.settings.data_folder import make_data_folder
from nearline.settings.folder_forms import agree_on_folder_forms
from nearline.settings.instance import runs_folder, shared
from nearline.settings.loading import write_settings
from nearline.settings.process_names import ProcessName, parse
from nearline.settings.settings import Settings
from nearline.up.build_monitor import with_named_port
from nearline.up.failure_reports import failure_reports_folder
from nearline.up.metrics import withdraw
from nearline.up.names import COLD, CONTEXTS, ENCODE, MONITOR, SERVE, serve_names
from nearline.up.run_health import RunHealth, served_health
from nearline.up.runtime import PROCESS_MODULE
from nearline.up.serve_ports import named_ports
from nearline.up.serving_package import ensure_core_topics, ensure_topics_of_live, serving_package, waiting_for_kafka
from nearline.up.stages import Stages, launcher
from nearline.up.start_checks import check_this_machine
from nearline.up.stop_signal import StopRequested, StopSignal
from nearline.up.supervisor import Supervisor
from schemas.generations import PlaceName
from streams.generations.last_state import last_state_file
from streams.generations.state import PLACES
from streams.kafka.heartbeat import heartbeat_folder
from streams.kafka.options import check_options

AT_PLACES: Final = (ENCODE, "index")
WITH_SLOTS: Final = (CONTEXTS, ENCODE)
_LOOK_EVERY_S: Final = 0.1

log = structlog.get_logger(__name__)


def names_of(settings: Settings, stage: str, places: Sequence[PlaceName] = PLACES, slot: int = 0) -> list[str]:
    """The processes of one `nearline run`."""
    if stage == SERVE:
        return serve_names(settings)
    process = COLD if stage == "index" else stage
    number = str(slot) if stage in WITH_SLOTS else None
    if stage not in AT_PLACES:
        return [str(ProcessName(process, None, number))]
    return [str(ProcessName(process, place, number)) for place in places]


def run_stage(settings: Settings, names: Sequence[str]) -> None:
    """Returns after SIGTERM or SIGINT, when its processes have ended. Call it from the main thread. Raises
    NearlineError, PackageError, StreamsError, NewerForm, and what `check_this_machine` raises."""
    if settings.kafka.bootstrap_servers is None:
        raise BadSettings("kafka.bootstrap_servers is missing: name the broker, because nearline run starts none")
    check_options(settings.kafka)
    check_this_machine(settings, [parse(names[0]).stage])
    make_data_folder(settings.data_dir)
    with ExitStack() as stack:
        stack.enter_context(shared(settings.data_dir, names))
        agree_on_folder_forms(settings.data_dir)
        package = load_named_package(settings)
        if parse(names[0]).stage == SERVE:
            serve = stack.enter_context(named_ports(settings.serve))
            settings = settings.model_copy(update={"serve": serve})
        if parse(names[0]).stage == MONITOR:
            settings = settings.model_copy(update={"monitor": with_named_port(settings.monitor)})
        if settings.run.port is not None:
            # Called only for its error: it names the setting.
            listening_port(settings.run.host, settings.run.port, "choose another run.port")
        health = RunHealth(settings.data_dir, settings.stalled_after_s)
        stack.enter_context(served_health(health, settings))
        _StageRun(settings, package, names, health).run()


class _StageRun:
    """The caller holds the locks."""

    def __init__(
        self, settings: Settings, named_package: ModelPackage | None, names: Sequence[str], health: RunHealth
    ) -> None:
        self._settings = settings
        self._health = health
        self._named_package = named_package
        self._names = names
        self._settings_file = runs_folder(settings.data_dir) / f"{names[0]}.json"
        self._supervisor = Supervisor()
        self._stop = StopSignal()
        launch = launcher(settings, PROCESS_MODULE, str(self._settings_file))
        self._stages = Stages(settings, self._supervisor, launch, names)

    def run(self) -> None:
        self._stop.listen()
        try:
            with self._stop.interrupting():
                self._prepare_kafka()
            write_settings(self._settings, self._settings_file)
            with self._stages.followed():
                log.info("runs", processes=list(self._names))
                while not self._stop.is_set:
                    state = self._stages.state
                    self._stages.look(state)
                    self._health.looked(self._supervisor.processes, knows_generations=state is not None)
                    time.sleep(_LOOK_EVERY_S)
        except StopRequested:
            pass
        finally:
            log.info("draining")
            self._health.drains()
            self._stages.drain()
            self._remove_runtime_files()
            log.info("stopped")

    def _prepare_kafka(self) -> None:
        """The first generation is founded by whoever names its package. Without a package this waits for one that
        others found. A retriever that was here before waits for no broker: it can answer by what the log said last."""
        if parse(self._names[0]).stage == SERVE and last_state_file(self._settings.data_dir).exists():
            return
        waiting_for_kafka(lambda: ensure_core_topics(self._settings.kafka))
        if self._named_package is not None:
            waiting_for_kafka(lambda: serving_package(self._settings, self._named_package))
        waiting_for_kafka(lambda: ensure_topics_of_live(self._settings.kafka))

    def _remove_runtime_files(self) -> None:
        self._settings_file.unlink(missing_ok=True)
        for name in {*self._names, *self._stages.started}:
            withdraw(name, self._settings.data_dir)
            shutil.rmtree(heartbeat_folder(self._settings.data_dir) / name, ignore_errors=True)
            Path(failure_reports_folder(self._settings.data_dir) / f"{name}.json").unlink(missing_ok=True)
