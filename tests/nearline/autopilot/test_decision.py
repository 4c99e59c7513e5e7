"""What the autopilot does next, by the log alone; what always holds, whatever others do and whenever it is killed."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nearline.autopilot import acts as own
from nearline.autopilot.acts import AUTOPILOT, FAILED
from nearline.autopilot.decision import GATE_AGAIN_AFTER, GATE_TRIES, Next, Plan, decide
from schemas.generations import Gate, GateFigure, PackageSource, Record
from schemas.ids import Generation
from schemas.models import ModelRecord
from streams.errors import ActRefused
from streams.generations import acts
from streams.generations.acts import By, Package
from streams.generations.state import Generations
from tests.kit.data.generations import AT
from tests.kit.data.models import model_record

A, B, C = Generation("a-1"), Generation("b-2"), Generation("c-3")
PLAN: Final = Plan(canary_share=0.05, canary_s=1800.0)
HOLDS, FAILS, UNMEASURED = (
    [GateFigure("recall", figure, 0.995, holds, note)]
    for figure, holds, note in ((0.997, True, ""), (0.9, False, "of 100 queries"), (None, False, "not measured: away"))
)


class World:
    """The log, what is announced, a clock, and an autopilot that may be killed between any two of its steps."""

    def __init__(self) -> None:
        self.now = AT
        self.models: dict[Generation, ModelRecord] = {}
        self.figures = HOLDS
        self.state = Generations()
        self.act(lambda state, by: acts.found(state, package(A), by))

    def switch(self, *, on: bool) -> None:
        self.act(lambda state, by: own.switch(state, by, on=on))

    def announce(self, generation: Generation) -> None:
        self.models[generation] = model_record(generation, at=self.now)

    def passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def act(self, do: "Act", who: str = "host:1", reason: str = "so") -> None:
        """An act of an operator, or of a process."""
        self._add(do(self.state, By(who, self.now, reason)))

    def next(self) -> Next:
        return decide(self.state, self.models, PLAN, self.now)

    def look(self) -> Next:
        """One look of an autopilot that knows nothing but the log."""
        coming = self.next()
        self._add(self.records(coming))
        return coming

    def records(self, coming: Next) -> Sequence[Record]:
        by = By(AUTOPILOT, self.now, coming.why)
        state, generation = self.state, coming.generation or A
        do: dict[str, Callable[[], Sequence[Record]]] = {
            "wait": lambda: [],
            "build": lambda: own.begin(state, package(generation), {}, by),
            "gate": lambda: own.gate(state, generation, Gate(self.now, self.figures), by),
            "canary": lambda: own.start_canary(state, generation, PLAN.canary_share, by),
            "promote": lambda: own.promote(state, generation, by),
            "fail": lambda: own.fail(state, generation, by),
            "leave": lambda: own.leave(state, generation, by),
        }
        return do[coming.what]()

    def looks(self) -> list[str]:
        """Until there is nothing to do now."""
        done = []
        while (coming := self.look()).what != "wait":
            done.append(coming.what)
            assert len(done) < 20, "it comes to rest"
        return done

    def _add(self, records: Sequence[Record]) -> None:
        self.state = self.state.with_records(records)
        assert self.state.contradiction() is None


Act = Callable[[Generations, By], Sequence[Record]]


def package(generation: Generation) -> Package:
    return Package(generation, PackageSource(registry="s3://models"), f"digest of {generation}")


def ready(generation: Generation = B) -> Act:
    return lambda state, by: acts.ready(state, generation, by)


@pytest.fixture
def world() -> World:
    """`a-1` serves, `b-2` is announced, and the autopilot is on."""
    world = World()
    world.announce(B)
    world.switch(on=True)
    return world


def ended_canary(state: Generations, by: By) -> Sequence[Record]:
    """As the retriever ends one that leaves its bounds."""
    if state.canary is None or state.pointer is None:
        return []
    ended = replace(state.pointer, canary=None, rolled_back=True)
    return [*acts.note(state, state.canary.id, "end of the canary", by), ended]


def to_the_canary(world: World) -> None:
    assert world.looks() == ["build"]
    world.act(ready())
    assert world.looks() == ["gate", "canary"]


def test_it_is_off_at_first() -> None:
    world = World()
    world.announce(B)
    assert world.look() == Next("wait", "it is off")
    assert world.state.autopilot is None


def test_what_is_announced_is_built_gated_tried_and_promoted_and_every_act_is_in_the_log(world: World) -> None:
    assert world.look().why == "it was published at 2026-01-05 10:00:00 UTC, as the newest model"
    assert world.look() == Next("wait", "it is being built", B)
    world.act(ready(), "cold:1")
    assert world.looks() == ["gate", "canary"]
    pointer = world.state.pointer
    assert pointer is not None
    assert pointer.canary is not None
    assert (pointer.serving, pointer.canary.generation, pointer.canary.share) == (A, B, 0.05)
    assert world.look() == Next("wait", "it is the canary", B, AT + timedelta(seconds=1800))
    world.passes(1799)
    assert world.looks() == []
    world.passes(1)
    assert world.looks() == ["promote"]
    assert world.look() == Next("wait", "the newest model b-2 serves", B)
    by_autopilot = [(act.what, act.reason) for act in world.state.records[B].history if act.who == AUTOPILOT]
    assert by_autopilot == [
        ("build", "it was published at 2026-01-05 10:00:00 UTC, as the newest model"),
        ("gate", "its 1 figures hold"),
        ("promote to 5 % of the members", "its gate holds"),
        ("promote", "it kept within its bounds as the canary since 2026-01-05 10:00:00 UTC"),
    ]
    assert world.state.autopilot is not None
    assert world.state.autopilot.work is None
    assert [act.what for act in world.state.autopilot.history] == ["on", "build", "gate holds", "canary", "promote"]


def test_only_the_newest_model_is_tried(world: World) -> None:
    world.passes(1)
    world.announce(C)
    assert world.look().generation == C
    assert world.state.autopilot is not None
    assert world.state.autopilot.work is not None
    world.passes(1)
    world.announce(Generation("d-4"))
    assert world.look() == Next("wait", "it is being built", C), "one at a time"


def test_a_gate_that_does_not_hold_ends_it_and_it_is_not_tried_again(world: World) -> None:
    world.figures = FAILS
    world.looks()
    world.act(ready())
    assert world.looks() == ["gate", "fail"]
    record = world.state.records[B]
    assert (record.state, record.history[-1].what) == ("ready", FAILED)
    assert record.history[-1].reason == "its gate does not hold: recall (of 100 queries)"
    assert world.look().why == f"the newest model b-2 failed: {record.history[-1].reason}"


def test_what_could_not_be_measured_is_measured_again_some_times(world: World) -> None:
    world.figures = UNMEASURED
    world.looks()
    world.act(ready())
    for _ in range(GATE_TRIES - 1):
        assert world.looks() == ["gate"]
        assert world.next().until == world.now + GATE_AGAIN_AFTER
        world.passes(GATE_AGAIN_AFTER.total_seconds())
    assert world.looks() == ["gate", "fail"]
    assert world.look().why.endswith("recall (not measured: away); measured 3 times")


def test_a_gate_that_could_be_measured_at_last_counts(world: World) -> None:
    world.figures = UNMEASURED
    world.looks()
    world.act(ready())
    assert world.looks() == ["gate"]
    world.figures = HOLDS
    world.passes(GATE_AGAIN_AFTER.total_seconds())
    assert world.looks() == ["gate", "canary"]


def test_a_canary_that_was_ended_by_serve_has_failed(world: World) -> None:
    to_the_canary(world)
    world.act(ended_canary, "serve:7", "40 of its 100 answers failed")
    assert world.looks() == ["fail"]
    why = "its canary has ended, by end of the canary of serve:7 (40 of its 100 answers failed)"
    assert world.state.records[B].history[-1].reason == why
    assert world.state.records[B].state == "ready", "it is left to the operator"


def test_the_next_model_takes_the_place_of_the_one_that_failed(world: World) -> None:
    world.figures = FAILS
    world.looks()
    world.act(ready())
    world.looks()
    world.announce(C)
    world.passes(1)
    assert world.looks() == ["build"]
    assert world.state.records[B].state == "retired"
    assert world.state.records[B].history[-1].reason == "it failed, and makes room for c-3"


def test_what_failed_and_was_taken_over_by_an_operator_keeps_its_place(world: World) -> None:
    to_the_canary(world)
    world.act(ended_canary)
    world.looks()
    world.act(lambda state, by: acts.record_gate(state, B, Gate(world.now, FAILS), by))
    world.passes(1)
    world.announce(C)
    coming = world.look()
    assert (coming.what, coming.generation) == ("wait", C)
    assert "the generation b-2 is ready already" in coming.why


def test_a_gate_that_is_run_by_hand_during_the_canary_and_fails_ends_both(world: World) -> None:
    to_the_canary(world)
    world.act(lambda state, by: acts.record_gate(state, B, Gate(world.now, FAILS), by))
    assert world.looks() == ["fail"]
    assert world.state.pointer is not None
    assert world.state.pointer.canary is None


TAKE_OVERS: Final[dict[str, list[Act]]] = {
    "it is serving, by promote of host:1 (so)": [lambda state, by: acts.promote(state, B, by, force=True)],
    "it is kept, by rollback of host:1 (so)": [
        lambda state, by: acts.promote(state, B, by, force=True),
        acts.rollback,
    ],
    "an operator took it over: rollback of the canary of host:1 (so)": [
        lambda state, by: acts.promote(state, B, by, share=0.5, force=True),
        acts.rollback,
    ],
    "an operator took it over: promote to 50 % of the members of host:1 (so)": [
        lambda state, by: acts.promote(state, B, by, share=0.5, force=True)
    ],
    "it is retired, by retire of host:1 (so)": [lambda state, by: acts.retire(state, B, by)],
    "it is not the one that the autopilot has built": [
        lambda state, by: acts.retire(state, B, by),
        lambda state, by: acts.build(state, package(B), {}, by),
    ],
}


@pytest.mark.parametrize("why", TAKE_OVERS)
@pytest.mark.parametrize("behind_s", [0, 3600], ids=["", "an operator's clock is behind"])
def test_an_operators_act_wins_and_the_generation_is_theirs(world: World, why: str, behind_s: float) -> None:
    world.looks()
    world.act(ready())
    world.now += timedelta(seconds=1 - behind_s)
    for act in TAKE_OVERS[why]:
        world.act(act)
    world.now += timedelta(seconds=1 + behind_s)
    assert world.look() == Next("leave", why, B)
    assert world.state.autopilot is not None
    assert world.state.autopilot.work is None
    rest = world.look()
    assert (rest.what, rest.generation) == ("wait", B)
    assert "leaves it to operators" in rest.why or "b-2 serves" in rest.why


def test_an_operator_may_measure_and_change_the_rate(world: World) -> None:
    world.looks()
    world.act(lambda state, by: acts.build(state, package(B), {}, by, rate=5.0))
    world.act(ready())
    world.act(lambda state, by: acts.record_gate(state, B, Gate(world.now, HOLDS), by))
    assert world.looks() == ["canary"]


def test_what_an_operator_builds_is_left_alone_and_keeps_its_place(world: World) -> None:
    world.act(lambda state, by: acts.build(state, package(C), {}, by))
    coming = world.look()
    assert (coming.what, coming.generation) == ("wait", B)
    assert "the generation c-3 is building already" in coming.why
    world.announce(C)
    world.models.pop(B)
    assert world.look().why == (
        "the newest model c-3 is building, since build of host:1 (so); the autopilot leaves it to operators"
    )


def test_switched_off_it_does_nothing_and_switched_on_it_goes_on(world: World) -> None:
    to_the_canary(world)
    world.switch(on=False)
    world.passes(4000)
    before = world.state
    assert world.look() == Next("wait", "it is off")
    assert world.state is before or world.state == before
    world.switch(on=True)
    assert world.looks() == ["promote"]


def test_switching_can_be_repeated() -> None:
    by = By("me", AT)
    assert own.switch(Generations(), by, on=False) == []
    on = Generations().with_records(own.switch(Generations(), by, on=True))
    assert on.autopilot_is_on
    assert own.switch(on, by, on=True) == []


def test_what_hinders_it_is_written_once_and_forgotten_with_the_next_act(world: World) -> None:
    hindered = own.hindered(world.state, "the registry is away")
    world.act(lambda *_: hindered)
    assert own.hindered(world.state, "the registry is away") == []
    world.looks()
    assert world.state.autopilot is not None
    assert world.state.autopilot.hindrance == ""


# --- whatever happens -------------------------------------------------------------------------------------------------

_IDS: Final = (B, B, B, A, C)
_LOOK: Final = ("look", None)
_EVENTS: Final = st.one_of(
    st.just(_LOOK),
    st.just(_LOOK),
    st.tuples(st.just("stale look"), st.integers(0, 3)),
    st.tuples(st.just("passes"), st.sampled_from([600.0, 1800.0, 90_000.0])),
    st.tuples(st.just("figures"), st.sampled_from([HOLDS, FAILS, UNMEASURED])),
    st.tuples(st.just("announce"), st.sampled_from(_IDS)),
    st.tuples(st.just("switch"), st.booleans()),
    st.tuples(
        st.sampled_from(["ready", "ready", "build", "gate", "try", "promote", "rollback", "bounds left", "retire"]),
        st.sampled_from(_IDS),
    ),
)
_BUILT: Final = (_LOOK, ("ready", B))
_BEGINNINGS: Final = (
    (),
    (_LOOK,),
    _BUILT,
    (*_BUILT, ("figures", UNMEASURED), _LOOK),
    (*_BUILT, ("figures", FAILS), _LOOK, _LOOK, ("announce", C)),
    (*_BUILT, _LOOK, _LOOK),
    (*_BUILT, _LOOK, _LOOK, ("bounds left", B), _LOOK, ("announce", C)),
    (*_BUILT, _LOOK, _LOOK, ("passes", 1800.0), _LOOK),
    (*_BUILT, ("try", B), ("rollback", B)),
    (*_BUILT, ("retire", B), ("build", B), ("ready", B)),
    (*_BUILT, ("figures", FAILS), _LOOK, _LOOK, ("try", B), ("rollback", B), ("announce", C)),
)


class Careful(World):
    """Checks each act of the autopilot when it is written."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: set[Generation] = set()
        """What operators have changed since the autopilot began to build it."""

    def operator(self, what: str, generation: Generation) -> None:
        do: dict[str, Act] = {
            "ready": ready(generation),
            "build": lambda state, by: acts.build(state, package(generation), {}, by),
            "gate": lambda state, by: acts.record_gate(state, generation, Gate(self.now, self.figures), by),
            "try": lambda state, by: acts.promote(state, generation, by, share=0.3, force=True),
            "promote": lambda state, by: acts.promote(state, generation, by, force=True),
            "rollback": acts.rollback,
            "bounds left": ended_canary,
            "retire": lambda state, by: acts.retire(state, generation, by, force=True),
        }
        before = self.state
        try:
            self.act(do[what], "host:1" if what not in ("ready", "bounds left") else "process:1")
        except ActRefused:
            return
        if what not in ("ready", "gate", "bounds left"):
            self.taken |= {
                record.id for record in self.state.records.values() if before.records.get(record.id) != record
            }

    def check(self, before: Generations, coming: Next) -> None:
        after, autopilot = self.state, self.state.autopilot
        if coming.what == "wait":
            assert after == before
            return
        assert before.autopilot_is_on, "it never acts while it is off"
        assert autopilot is not None
        assert after.serving is not None
        assert before.serving is not None
        changed = {name for name, record in after.records.items() if before.records.get(name) != record}
        assert before.serving.id not in changed or coming.what == "promote"
        for name in changed - {before.serving.id}:
            old, new = before.records.get(name), after.records[name]
            if new.state == "retired":
                assert coming.what == "build"
                assert old is not None
                assert old.state == "kept" or (name in autopilot.failed and name not in self.taken)
            else:
                assert name == coming.generation, "it works on one generation"
                assert name not in self.taken, "an operator's act wins"
        if coming.what == "build":
            assert coming.generation is not None
            assert before.autopilot is not None
            assert before.autopilot.work is None, "one at a time"
            assert coming.generation not in before.autopilot.failed, "what failed is not tried again"
            self.taken.discard(coming.generation)
        if coming.what == "promote":
            self._check_promotion(before, after)

    def _check_promotion(self, before: Generations, after: Generations) -> None:
        assert after.serving is not None
        gate = before.records[after.serving.id].gate
        assert gate is not None
        assert gate.holds, "nothing is promoted whose gate does not hold"
        assert before.pointer is not None
        canary = before.pointer.canary
        assert canary is not None
        assert canary.generation == after.serving.id
        assert self.now >= canary.since + timedelta(seconds=PLAN.canary_s), "it was the canary for its time"


@settings(max_examples=200)
@given(st.sampled_from(_BEGINNINGS), st.lists(_EVENTS, max_size=12))
def test_whatever_others_do_and_whenever_it_is_killed(
    beginning: Sequence[tuple[str, object]], events: list[tuple[str, object]]
) -> None:
    """A kill leaves nothing: each look begins with the log alone, and writes all of an act or nothing."""
    world = Careful()
    world.announce(B)
    world.switch(on=True)
    decided: list[Next] = []
    for name, value in (*beginning, *events):
        world.passes(1)
        before = world.state
        if name == "look":
            coming = world.look()
            decided.append(coming)
            world.check(before, coming)
        elif name == "stale look":
            _write_late(world, decided, int(str(value)))
        elif name in ("passes", "announce"):
            getattr(world, name)(value)
        elif name == "figures":
            world.figures = value  # type: ignore[assignment]
        elif name == "switch":
            world.switch(on=bool(value))
        else:
            world.operator(name, value)  # type: ignore[arg-type]
    _comes_to_rest(world)


def _write_late(world: Careful, decided: list[Next], back: int) -> None:
    """A second autopilot, or one that was frozen, writes what it decided before: only if that is still what comes."""
    if back < len(decided) and (coming := decided[-1 - back]) == world.next():
        before = world.state
        world.act(lambda *_: world.records(coming), AUTOPILOT)
        world.check(before, coming)


def _comes_to_rest(world: Careful) -> None:
    """Left to itself it ends where nothing is to be done, now or later, or it waits for a generation to be built."""
    for _ in range(12):
        world.passes(GATE_AGAIN_AFTER.total_seconds() + PLAN.canary_s)
        while True:
            before = world.state
            coming = world.look()
            world.check(before, coming)
            if coming.what == "wait":
                break
    assert world.next().until is None
    assert world.next() == decide(world.state, world.models, PLAN, world.now + timedelta(days=1000))


def test_an_operators_clock_does_not_hide_what_is_done(world: World) -> None:
    """Its acts are found by their order in the history."""
    world.looks()
    world.act(ready())
    world.now = datetime(2020, 1, 1, tzinfo=AT.tzinfo)
    world.act(lambda state, by: acts.promote(state, B, by, share=0.5, force=True))
    world.act(acts.rollback)
    world.now = AT + timedelta(seconds=5)
    assert world.look().what == "leave"
