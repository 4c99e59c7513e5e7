"""Keeps the processes of the stages running: those for all generations always, those of a place while one lives there.

Follows the log of the generations. Owns the follower, the search for processes that stand still, and the closing of
segments. Everything is called from the main thread, because the kernel kills a process when the thread that started it
ends. Knows no broker, no file of the instance, and not what runs inside a process.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import structlog

from nearline import children
from nearline.generations.local_files import remove_local_files
from nearline.settings.settings import Settings
from nearline.up.failure_reports import failure_report_of
from nearline.up.names import (
    COLD,
    CONTEXTS,
    ENCODE,
    SERVE,
    STAGES,
    TRENDING,
    ProcessName,
    parse,
)
from nearline.up.resources import child_environment
from nearline.up.stall_detector import StallDetector
from nearline.up.supervisor import Part, Supervisor
from schemas import stages
from schemas.topics import core_topics, generation_topics
from streams.generations.follower import GenerationsFollower
from streams.generations.state import Generations
from streams.kafka.closing_segments import close_segments
from streams.kafka.node_id import node_id
from streams.kafka.periodic import repeating

LEAVE_GRACE_S: Final = 30.0
"""For the processes of a place whose generation was retired. They end by themselves, after their batch."""
STAGES_GRACE_S: Final = 9.0
COLD_GRACE_S: Final = 4.0
"""How long processes have to stop before they are killed. The cold tier's stop last: the retriever asks them."""
_FIRST_STATE_S: Final = 10.0
_REMOVE_EVERY_S: Final = 5.0

log = structlog.get_logger(__name__)


Launcher = Callable[[str], Callable[[], children.Child]]
"""Takes the name of a process, and returns what launches it."""


class Stages:
    def __init__(
        self,
        settings: Settings,
        supervisor: Supervisor,
        launcher: Launcher,
        names: Sequence[str],
    ) -> None:
        """`settings` must name the broker. `names` are the processes to keep running, those of a place while one lives
        there."""
        self._settings = settings
        self._supervisor = supervisor
        self._launcher = launcher
        self._names = list(names)
        self._follower = GenerationsFollower(settings.kafka)

    @property
    def state(self) -> Generations:
        """The newest state of the log; an empty one until it was read."""
        return self._follower.current() or Generations()

    @contextmanager
    def followed(self) -> Iterator[None]:
        """What happens in the log and in the processes is followed from now on, until the block is left."""
        erase_s = self._settings.kafka.erase_within_s
        self._detector = StallDetector(
            self._settings.kafka,
            lambda: groups_in_use(self.state),
            self._settings.data_dir,
            self._settings.stalled_after_s,
        )
        with (
            self._follower.running(),
            repeating("closing segments", erase_s / 8, self._close_segments),
            repeating("removing what retired generations left", _REMOVE_EVERY_S, self._remove_retired),
        ):
            self._detector.start()
            try:
                yield
            finally:
                self._detector.close()

    def look(self, state: Generations) -> None:
        """Call it about ten times a second, within `followed`, with a state from this object."""
        running = {process.name for process in self._supervisor.processes}
        for name in self._names:
            has_work = _has_work(parse(name), state)
            if has_work and name not in running:
                log.info("starting a process", part=name)
                report = failure_report_of(self._settings.data_dir, name)
                self._supervisor.start(Part(name, self._launcher(name), report))
            elif not has_work and name in running:
                self._supervisor.end(name, LEAVE_GRACE_S)
        self._supervisor.look()
        for name in self._detector.stalled_names(self._supervisor.processes):
            log.warning("a process stands still and is killed", part=name, after_s=self._settings.stalled_after_s)
            self._supervisor.kill(name)

    def drain(self) -> None:
        """Stops all of them, the cold tiers last."""
        names = [process.name for process in self._supervisor.processes if parse(process.name).stage in STAGES]
        self._supervisor.drain([name for name in names if parse(name).stage != COLD], STAGES_GRACE_S)
        self._supervisor.drain(names, COLD_GRACE_S)

    def _close_segments(self) -> None:
        state = self._follower.wait_for(lambda _: True, _FIRST_STATE_S)
        live = [] if state is None else state.live
        specs = [*core_topics(), *(spec for record in live for spec in generation_topics(record.id))]
        close_segments(self._settings.kafka, specs, f"segments.{node_id(self._settings.data_dir)}")

    def _remove_retired(self) -> None:
        """Whoever retired a generation may have done it on another machine."""
        for record in self.state.records.values():
            if record.state == "retired":
                remove_local_files(self._settings.data_dir, record.id)


def _has_work(name: ProcessName, state: Generations) -> bool:
    if name.stage == SERVE:
        return state.serving is not None
    return name.place is None or state.at(name.place) is not None


def launcher(settings: Settings, process_module: str, *arguments: str) -> Launcher:
    """Launches `python -m PROCESS_MODULE NAME DATA_DIR ARGUMENTS`. The process reads its settings from a file: the
    command line, which everybody can read, holds no secrets."""

    def launch_by_name(name: str) -> Callable[[], children.Child]:
        command = [sys.executable, "-m", process_module, name, str(settings.data_dir), *arguments]
        return lambda: children.spawn(command, env=child_environment(name, settings), dies_with_parent=True)

    return launch_by_name


def groups_in_use(state: Generations) -> dict[str, str]:
    """The consumer group of each process, by the process's name without its slot."""
    groups = {CONTEXTS: stages.CONTEXTS.group, TRENDING: stages.TRENDING.group}
    for record in state.live:
        groups[ProcessName(ENCODE, record.place).group] = stages.encode_reads(record.id).group
        groups[ProcessName(COLD, record.place).group] = stages.index_reads(record.id).group
    return groups
