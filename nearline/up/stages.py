"""Keeps the processes of the stages running: those for all generations always, those of a place while one lives there,
the autopilot while it is switched on.

Follows the log of the generations. Owns the follower, the search for processes that stand still, and the closing of
segments. Everything is called from the main thread, because the kernel kills a process when the thread that started it
ends. Knows no broker, no file of the instance, and not what runs inside a process.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import structlog

from nearline import children
from nearline.generations.local_files import remove_local_files, remove_rows
from nearline.settings.process_names import ProcessName, parse
from nearline.settings.settings import Settings
from nearline.up.failure_reports import failure_report_of
from nearline.up.names import (
    AUTOPILOT,
    COLD,
    CONTEXTS,
    ENCODE,
    STAGES,
    TRENDING,
    of_version,
)
from nearline.up.resources import child_environment
from nearline.up.stall_detector import StallDetector
from nearline.up.supervisor import Part, Supervisor
from schemas import stages
from schemas.topics import FIRST_CONTEXTS, POST_VECTOR_SPECS
from streams.generations.follower import GenerationsFollower
from streams.generations.state import Generations
from streams.kafka.closing_segments import close_segments
from streams.kafka.node_id import node_id
from streams.kafka.periodic import repeating
from streams.kafka.topics import existing

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
        self._started: set[str] = set()
        # Written by the main thread, always as a whole. None before its first look.
        self._running: frozenset[str] | None = None

    @property
    def state(self) -> Generations | None:
        """The newest state of the log; None until it was read."""
        return self._follower.current()

    @property
    def started(self) -> frozenset[str]:
        """The names of all processes that were started so far."""
        return frozenset(self._started)

    @contextmanager
    def followed(self) -> Iterator[None]:
        """What happens in the log and in the processes is followed from now on, until the block is left."""
        erase_s = self._settings.kafka.erase_within_s
        self._detector = StallDetector(
            self._settings.kafka,
            lambda: groups_in_use(self.state or Generations()),
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

    def look(self, state: Generations | None) -> None:
        """Call it about ten times a second, within `followed`, with a state from this object."""
        running = self._running = frozenset(process.name for process in self._supervisor.processes)
        for name in self._all_names(state, running):
            has_work = _has_work(parse(name), state)
            if has_work and name not in running:
                log.info("starting a process", part=name)
                self._started.add(name)
                report = failure_report_of(self._settings.data_dir, name)
                self._supervisor.start(Part(name, self._launcher(name), report))
            elif not has_work and name in running:
                self._supervisor.end(name, LEAVE_GRACE_S)
        self._supervisor.look()
        for name in self._detector.stalled_names(self._supervisor.processes):
            log.warning("a process stands still and is killed", part=name, after_s=self._settings.stalled_after_s)
            self._supervisor.kill(name)

    def _all_names(self, state: Generations | None, running: Iterable[str]) -> list[str]:
        """Also of the versions of the contexts that run, or ran until now."""
        contexts = [name for name in self._names if parse(name).stage == CONTEXTS]
        versions = [] if state is None else state.context_versions
        of_versions = [of_version(name, version) for name in contexts for version in versions]
        left = [name for name in running if parse(name).stage == CONTEXTS]
        return list(dict.fromkeys((*self._names, *of_versions, *left)))

    def drain(self) -> None:
        """Stops all of them, the cold tiers last."""
        names = [process.name for process in self._supervisor.processes if parse(process.name).stage in STAGES]
        self._supervisor.drain([name for name in names if parse(name).stage != COLD], STAGES_GRACE_S)
        self._supervisor.drain(names, COLD_GRACE_S)

    def _close_segments(self) -> None:
        state = self._follower.wait_for(lambda _: True, _FIRST_STATE_S) or Generations()
        kafka = self._settings.kafka
        # A topic that an upgrade brings may not be made yet, and must not be made by writing to it.
        specs = existing(kafka, [*state.topics, *POST_VECTOR_SPECS])
        close_segments(kafka, specs, f"segments.{node_id(kafka, self._settings.data_dir)}")

    def _remove_retired(self) -> None:
        """Whoever retired a generation may have done it on another machine."""
        state = self.state or Generations()
        for record in state.records.values():
            if record.state == "retired":
                remove_local_files(self._settings.data_dir, record)
        if self._running is None:
            return
        retired = [record.version for record in state.contexts.values() if record.state == "retired"]
        for name in self._names:
            slot = parse(name).slot or "0"
            for version in retired if parse(name).stage == CONTEXTS else ():
                if of_version(name, version) not in self._running:
                    remove_rows(self._settings.data_dir, slot, version)


def _has_work(name: ProcessName, state: Generations | None) -> bool:
    """The retriever always has: it follows the log itself, and knows more of it while the broker is away. Until the log
    was read, the contexts have none: also the first version may be retired."""
    if state is None:
        return name.place is None and name.stage not in {AUTOPILOT, CONTEXTS}
    if name.stage == AUTOPILOT:
        return state.autopilot_is_on
    if name.stage == CONTEXTS:
        return (name.version or FIRST_CONTEXTS) in state.context_versions
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
    groups = {TRENDING: stages.TRENDING.group}
    for version in state.context_versions:
        process = ProcessName(CONTEXTS, version=None if version == FIRST_CONTEXTS else version)
        groups[process.group] = stages.contexts_reads(version).group
    for record in state.live:
        groups[ProcessName(ENCODE, record.place).group] = stages.encode_reads(record.id).group
        groups[ProcessName(COLD, record.place).group] = stages.index_reads(record.id).group
    return groups
