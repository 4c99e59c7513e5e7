"""What stands still, for a status: asked of the monitor, which has looked for a while. Where it does not answer, only
the processes of this machine are looked at, once."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from nearline.errors import NotReady
from nearline.monitor.judgement import BROKER, ProcessSeen, StandsStill, beginning, judge
from nearline.monitor.processes import state_of
from nearline.monitor.report import Standstill, ask_monitor
from nearline.monitor.seen import stages_seen
from nearline.settings.instance import ProcessInfo

_ON_THE_WAY: Final = frozenset((BROKER, "contexts", "encode", "index"))
"""What every change passes before it is searchable in both tiers."""
_ANSWER_S: Final = 1.0


class Standing(NamedTuple):
    """`stages`: those that stand still, and their generation, with a sentence for each. `oldest_age_s`: by group and
    topic, for how long a record has waited, at least."""

    stages: frozenset[tuple[str, str | None]] = frozenset()
    sentences: Sequence[str] = ()
    for_everybody: Sequence[str] = ()
    """The sentences without the causes, which may name processes and hosts."""
    oldest_age_s: Mapping[str, Mapping[str, float]] = MappingProxyType({})
    problems: Sequence[str] = ()

    @property
    def broker_is_silent(self) -> bool:
        return (BROKER, None) in self.stages

    def holds_up(self, generation: str | None) -> bool:
        """Whether changes do not become searchable in both tiers of the generation."""
        return any(stage in _ON_THE_WAY and of in (None, generation) for stage, of in self.stages)


def standing(monitor: str | None, processes: Sequence[ProcessInfo], stalled_after_s: float) -> Standing:
    """`monitor` is its URL; None if there is none. `processes` are those of this machine. Takes a second at most,
    beside the time in which the monitor's name is looked up."""
    problems = []
    if monitor is not None:
        try:
            report = ask_monitor(monitor, _ANSWER_S)
        except NotReady as error:
            problems.append(f"monitor: {error}; so a stage that stands still may not be named here")
        else:
            return standing_of(report.standing_still)._replace(oldest_age_s=report.oldest_age_s)
    seen = [ProcessSeen(process.name, process.pid, state_of(process)) for process in processes]
    verdicts = judge(stages_seen([], seen, None), None, stalled_after_s)
    return standing_of(verdicts)._replace(problems=problems)


def standing_of(verdicts: Sequence[Standstill | StandsStill]) -> Standing:
    return Standing(
        frozenset((each.stage, each.generation) for each in verdicts),
        [each.sentence for each in verdicts],
        [f"{beginning(each.stage, each.generation, each.for_s)}; {each.holds_up}; {each.next}" for each in verdicts],
    )


class StandingWatch:
    """What stands still, asked for again and again by one thread: whoever reads it never waits."""

    def __init__(self, ask: Callable[[], Standing]) -> None:
        self._ask = ask
        self._standing = Standing()

    def look(self) -> None:
        self._standing = self._ask()

    def for_everybody(self) -> Sequence[str]:
        return self._standing.for_everybody
