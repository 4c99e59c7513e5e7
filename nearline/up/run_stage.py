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
from nearline.generations.packages import package_here
from nearline.settings.data_folder import make_data_folder
from nearline.settings.instance import runs_folder, shared
from nearline.settings.loading import write_settings
from nearline.settings.settings import Settings
from nearline.up.failure_reports import failure_reports_folder
from nearline.up.metrics import withdraw
from nearline.up.names import COLD, CONTEXTS, ENCODE, SERVE, TRENDING, ProcessName, parse, serve_names
from nearline.up.runtime import PROCESS_MODULE
from nearline.up.serve_ports import named_ports
from nearline.up.serving_package import ensure_topics_of_live, serving_package, waiting_for_kafka
from nearline.up.stages import Stages, launcher
from nearline.up.stop_signal import StopRequested, StopSignal
from nearline.up.supervisor import Supervisor
from retriever.http import tls
from schemas.generations import GenerationRecord, PlaceName
from schemas.ids import Generation
from schemas.topics import core_topics
from streams.generations.state import PLACES
from streams.kafka.heartbeat import heartbeat_folder
from streams.kafka.options import check_options
from streams.kafka.topics import ensure_topics

RUNNABLE: Final = (CONTEXTS, TRENDING, ENCODE, "index", SERVE)
"""The stages, by the names under which status and lag show them."""
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
    NearlineError, PackageError, StreamsError, BadCertificate."""
    if settings.kafka.bootstrap_servers is None:
        raise BadSettings("kafka.bootstrap_servers is missing: name the broker, because nearline run starts none")
    check_options(settings.kafka)
    make_data_folder(settings.data_dir)
    with ExitStack() as stack:
        stack.enter_context(shared(settings.data_dir, names))
        package = None if settings.package is None else ModelPackage.load(settings.package.absolute())
        if parse(names[0]).stage == SERVE:
            # Called only for its errors.
            tls.server_context(settings.serve)
            serve = stack.enter_context(named_ports(settings.serve))
            settings = settings.model_copy(update={"serve": serve})
        _StageRun(settings, package, names).run()


class _StageRun:
    """The caller holds the locks."""

    def __init__(self, settings: Settings, named_package: ModelPackage | None, names: Sequence[str]) -> None:
        self._settings = settings
        self._named_package = named_package
        self._names = names
        self._settings_file = runs_folder(settings.data_dir) / f"{names[0]}.json"
        self._supervisor = Supervisor()
        self._stop = StopSignal()
        self._serving: Generation | None = None
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
                    self._follow_serving(state.serving)
                    self._stages.look(state)
                    time.sleep(_LOOK_EVERY_S)
        except StopRequested:
            pass
        finally:
            log.info("draining")
            self._stages.drain()
            self._remove_runtime_files()
            log.info("stopped")

    def _prepare_kafka(self) -> None:
        """The first generation is founded by whoever names its package. Without a package this waits for one that
        others found."""
        waiting_for_kafka(lambda: ensure_topics(self._settings.kafka, core_topics()))
        if self._named_package is not None:
            waiting_for_kafka(lambda: serving_package(self._settings, self._named_package))
        waiting_for_kafka(lambda: ensure_topics_of_live(self._settings.kafka))

    def _follow_serving(self, serving: GenerationRecord | None) -> None:
        """The retriever finds the serving package in its settings when it starts."""
        if serving is None or serving.id == self._serving or parse(self._names[0]).stage != SERVE:
            return
        folder = package_here(serving, self._settings).folder
        write_settings(self._settings.model_copy(update={"package": folder}), self._settings_file)
        self._serving = serving.id

    def _remove_runtime_files(self) -> None:
        self._settings_file.unlink(missing_ok=True)
        for name in self._names:
            withdraw(name, self._settings.data_dir)
            shutil.rmtree(heartbeat_folder(self._settings.data_dir) / name, ignore_errors=True)
            Path(failure_reports_folder(self._settings.data_dir) / f"{name}.json").unlink(missing_ok=True)
