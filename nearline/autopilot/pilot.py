"""The autopilot: looks again and again what comes next, and does it. Nothing is remembered from one look to the next.

Every act is decided twice: before its work, which may take minutes, and in the transaction that writes it, on the
newest state of the log. If an operator has done something meanwhile, the work is thrown away.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

import structlog
from prometheus_client import CollectorRegistry

from encoders.errors import PackageError
from nearline.autopilot import acts
from nearline.autopilot.decision import Models, Next, Plan, decide
from nearline.autopilot.metrics import AutopilotMetrics, Outcome
from nearline.errors import NearlineError
from nearline.generations.building import load_package, start_building
from nearline.generations.packages import remove_fetched
from nearline.generations.retiring import remove_left_behind, remove_unbuilt
from nearline.settings.settings import Settings
from schemas.generations import Gate, GenerationRecord, Record
from schemas.ids import Generation
from streams.errors import ActRefused, KafkaUnavailable, StillFed
from streams.generations.acts import By, Goal, Package, acting
from streams.generations.log import change_generations, read_generations
from streams.generations.models import read_models
from streams.generations.state import Generations
from streams.settings import KafkaSettings
from trainer.errors import BadRegistry

Measure = Callable[[Generations, GenerationRecord], Gate]
"""Runs the gate of a generation beside the serving one. Takes minutes. Raises ActRefused where it cannot be gated."""
RefuseWithoutRoom = Callable[[Package, Generations], None]
"""Raises NoRoom where this machine has no room for a generation of the package."""

log = structlog.get_logger(__name__)


def now() -> datetime:
    return datetime.now(UTC)


class Pilot:
    """For one thread. Of several processes with one the log takes the acts of one at a time, so that the others only
    work for nothing."""

    def __init__(
        self,
        settings: Settings,
        kafka: KafkaSettings,
        measure: Measure,
        refuse_without_room: RefuseWithoutRoom,
        clock: Callable[[], datetime] = now,
        *,
        metrics: AutopilotMetrics | None = None,
    ) -> None:
        self._settings = settings
        self._kafka = kafka
        self._measure = measure
        self._refuse_without_room = refuse_without_room
        self._clock = clock
        self._metrics = metrics or AutopilotMetrics(CollectorRegistry())

    def look(self) -> Next:
        """Does what comes next, and returns it. Can be repeated after every error. Raises StreamsError, OSError."""
        state, models = read_generations(self._kafka), read_models(self._kafka).models
        decision = _Decision(state, models, plan_of(self._settings), self._clock())
        coming = decision.next
        if coming.what == "wait":
            self._remove_left_behind(state)
            return coming
        log.info("next", what=coming.what, generation=coming.generation, why=coming.why)
        act: str = coming.what
        outcome: Outcome = "error"
        try:
            act, outcome = self._try(decision)
        finally:
            self._metrics.acted(act, outcome)
        return coming

    def _try(self, decision: "_Decision") -> tuple[str, Outcome]:
        """Returns the act, and what came of it."""
        coming = decision.next
        try:
            return self._do(decision), "done"
        except ActRefused as refused:
            log.info("what was to be done is not done", what=coming.what, why=str(refused))
            return coming.what, "refused"
        except (NearlineError, BadRegistry, OSError) as error:
            log.warning("it is not possible now", what=coming.what, why=str(error))
            self._write_hindrance(decision, str(error))
            return coming.what, "hindered"

    def _do(self, decision: "_Decision") -> str:
        """Returns the act that is in the log now."""
        what, _, generation, _ = decision.next
        assert generation is not None, "only a wait is for none"
        share = self._settings.autopilot.canary_share
        writing: Mapping[str, _Adds] = {
            "canary": lambda state, by: acts.start_canary(state, generation, share, by),
            "promote": lambda state, by: acts.promote(state, generation, by),
            "fail": lambda state, by: acts.fail(state, generation, by),
            "leave": lambda state, by: acts.leave(state, generation, by),
        }
        if what == "build":
            return self._build(decision, generation)
        if what == "gate":
            found = self._measure(decision.state, decision.state.records[generation])
            self._write(decision, lambda state, by: acts.gate(state, generation, found, by))
        else:
            self._write(decision, writing[what])
        return what

    def _build(self, decision: "_Decision", generation: Generation) -> str:
        """Returns the act: a package that cannot be used has failed."""
        model = decision.models[generation]
        # Older models are not tried any more. Who fetched one after this one was published builds it by hand.
        for older in decision.models.keys() - decision.state.records.keys() - {generation}:
            remove_fetched(self._settings.data_dir, older, model.published_at)
        try:
            package = load_package(generation, model.package, self._settings.data_dir)
        except PackageError as error:
            return self._fail(decision, generation, f"its package cannot be used: {error}")
        if (package.id, package.digest) != (generation, model.digest):
            return self._fail(decision, generation, f"another package than the announced one lies in {model.package}")

        def begin(state: Generations, package: Package, goal: Goal, by: By) -> Sequence[Record]:
            decision.check(state)
            return acts.begin(state, package, goal, by)

        refuse = partial(self._refuse_without_room, package)
        try:
            start_building(self._kafka, package, self._by(decision), begin, refuse)
        except ActRefused:
            remove_unbuilt(self._settings, self._kafka, generation)
            raise
        return "build"

    def _fail(self, decision: "_Decision", generation: Generation, why: str) -> str:
        self._write(decision, lambda state, by: acts.fail(state, generation, acting(by.who, why, by.at)))
        remove_unbuilt(self._settings, self._kafka, generation)
        return "fail"

    def _write(self, decision: "_Decision", adds: "_Adds") -> None:
        def decided(state: Generations) -> Sequence[Record]:
            decision.check(state)
            return adds(state, self._by(decision))

        change_generations(self._kafka, decided)

    def _write_hindrance(self, decision: "_Decision", why: str) -> None:
        """Where its operators see it. Nothing is written again while it stays the same."""
        reason = acting(acts.AUTOPILOT, why).reason
        self._write(decision, lambda state, _: acts.hindered(state, reason))

    def _by(self, decision: "_Decision") -> By:
        return acting(acts.AUTOPILOT, decision.next.why, self._clock())

    def _remove_left_behind(self, state: Generations) -> None:
        """What the generation has left that was retired for the one that is being built."""
        work = state.autopilot.work if state.autopilot_is_on and state.autopilot is not None else None
        if work is None or work.step != "build":
            return
        try:
            remove_left_behind(self._settings, self._kafka)
        except (StillFed, KafkaUnavailable) as error:
            log.info("what was retired is removed later", why=str(error))


def plan_of(settings: Settings) -> Plan:
    return Plan(settings.autopilot.canary_share, settings.autopilot.canary_s)


_Adds = Callable[[Generations, By], Sequence[Record]]
"""The records that an act adds to a state."""


class _Decision:
    """What was decided at one look."""

    def __init__(self, state: Generations, models: Models, plan: Plan, at: datetime) -> None:
        self.state = state
        self.models = models
        self._plan = plan
        self._at = at
        self.next = decide(state, models, plan, at)

    def check(self, state: Generations) -> None:
        """Raises ActRefused if the log says something else by now."""
        if decide(state, self.models, self._plan, self._at) != self.next:
            raise ActRefused("somebody else has changed the generations meanwhile")
