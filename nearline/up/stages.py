"""Keeps the processes of the stages running: those for all generations always, those of a place while one lives there.

Follows the log of the generations. Owns the follower, the search for processes that stand still, and the closing of
segments. Everything is called from the main thread, because the kernel kills a process when the thread that started it
ends. Knows no broker, no file of the instance, and not what runs inside a process.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
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
    STAGES,
    TRENDING,
    ProcessName,
    names_at,
    names_of_all_generations,
    parse,
)
from nearline.up.resources import child_environment
from nearline.up.stall_detector import StallDetector
from nearline.up.supervisor import Part, Supervisor
from schemas import stages
from schemas.topics import core_topics, generation_topics
from streams.generations.follower import GenerationsFollower
from streams.generations.state import PLACES, Generations
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


class Stages:
    def __init__(
        self,
        settings: Settings,
        supervisor: Supervisor,
        process_module: str,
        is_wanted: Callable[[ProcessName], bool] = lambda _: True,
    ) -> None:
        """`settings` must name the broker. Each process is started as `python -m PROCESS_MODULE NAME DATA_DIR`, if it
        is wanted here."""
        self._settings = settings
        self._supervisor = supervisor
        self._process_module = process_module
        self._is_wanted = is_wanted
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

    def look(self) -> None:
        """Call it about ten times a second, within `followed`."""
        known = {process.name for process in self._supervisor.processes}
        for name in self._wanted(names_of_all_generations(self._settings)):
            self._start(name, known)
        for place in PLACES:
            names = self._wanted(names_at(self._settings, place))
            if self.state.at(place) is None:
                for name in known.intersection(names):
                    self._supervisor.end(name, LEAVE_GRACE_S)
            else:
                for name in names:
                    self._start(name, known)
        self._supervisor.look()
        for name in self._detector.stalled_names(self._supervisor.processes):
            log.warning("a process stands still and is killed", part=name, after_s=self._settings.stalled_after_s)
            self._supervisor.kill(name)

    def drain(self) -> None:
        """Stops all of them, the cold tiers last."""
        names = [process.name for process in self._supervisor.processes if parse(process.name).stage in STAGES]
        self._supervisor.drain([name for name in names if parse(name).stage != COLD], STAGES_GRACE_S)
        self._supervisor.drain(names, COLD_GRACE_S)

    def _wanted(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self._is_wanted(parse(name))]

    def _start(self, name: str, known: set[str]) -> None:
        if name in known:
            return
        log.info("starting a process", part=name)
        self._supervisor.start(Part(name, self._launcher(name), failure_report_of(self._settings.data_dir, name)))

    def _launcher(self, name: str) -> Callable[[], children.Child]:
        # The process reads its settings from a file. Everybody can read the command line, so it holds no secrets.
        command = [sys.executable, "-m", self._process_module, name, str(self._settings.data_dir)]
        return lambda: children.spawn(command, env=child_environment(name, self._settings), dies_with_parent=True)

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


def groups_in_use(state: Generations) -> dict[str, str]:
    """The consumer group of each process, by the process's name without its slot."""
    groups = {CONTEXTS: stages.CONTEXTS.group, TRENDING: stages.TRENDING.group}
    for record in state.live:
        groups[ProcessName(ENCODE, record.place).group] = stages.encode_reads(record.id).group
        groups[ProcessName(COLD, record.place).group] = stages.index_reads(record.id).group
    return groups
