"""Acts on generations: what each one leads to, what is refused and with which words, and what always holds."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.generations import Canary, Gate, GateFigure, PackageSource, Pointer, Record, decode_record, encode_record
from schemas.generations import key_of as key_of_record
from schemas.ids import Generation, Offset, Partition
from streams.errors import ActRefused
from streams.generations import acts
from streams.generations.acts import By, Package
from streams.generations.state import Generations
from tests.kit.data.generations import AT

A, B, C = Generation("a-1"), Generation("b-2"), Generation("c-3")
GOAL: Final = {"post-contexts": {Partition(0): Offset(7)}}
HOLDS = Gate(AT, [GateFigure("recall", 0.997, 0.995, True)])
FAILS = Gate(AT, [GateFigure("recall", 0.9, 0.995, False), GateFigure("p99", None, 1.5, False)])


Step = Callable[[Generations], Sequence[Record]]


def by(hours: float = 0, reason: str = "") -> By:
    return By("host:1", AT + timedelta(hours=hours), reason)


def package(generation: Generation) -> Package:
    return Package(generation, PackageSource(folder=f"/my models/{generation}"), f"digest of {generation}")


def after(*steps: Step) -> Generations:
    state = Generations()
    for step in steps:
        state = state.with_records(step(state))
    return state


def found(state: Generations) -> Sequence[Record]:
    return acts.found(state, package(A), by())


def build(state: Generations) -> Sequence[Record]:
    return acts.build(state, package(B), GOAL, by())


def build_third(state: Generations) -> Sequence[Record]:
    return acts.build(state, package(C), GOAL, by())


def ready(state: Generations) -> Sequence[Record]:
    return acts.ready(state, B, by())


def gate(state: Generations) -> Sequence[Record]:
    return acts.record_gate(state, B, HOLDS, by())


def canary(state: Generations) -> Sequence[Record]:
    return acts.promote(state, B, by(), share=0.05)


def promote(state: Generations) -> Sequence[Record]:
    return acts.promote(state, B, by(reason="better"))


def rollback(state: Generations) -> Sequence[Record]:
    return acts.rollback(state, by(1, "worse"))


READY = (found, build, ready, gate)


def states(state: Generations) -> dict[Generation, tuple[str, str | None]]:
    return {record.id: (record.state, record.place) for record in state.records.values()}


def test_the_first_generation_serves_at_once() -> None:
    state = after(found)
    assert (states(state), state.pointer) == ({A: ("serving", "blue")}, Pointer(A))
    assert found(state) == []
    assert (state.records[A].package, state.records[A].digest) == (package(A).source, package(A).digest)


def test_another_is_built_promoted_and_left_again() -> None:
    state = after(found, build)
    assert states(state) == {A: ("serving", "blue"), B: ("building", "green")}
    assert state.records[B].goal == GOAL
    state = after(*READY, canary)
    assert state.pointer == Pointer(A, canary=Canary(B, 0.05, AT))
    state = after(*READY, canary, promote)
    assert states(state) == {A: ("kept", "blue"), B: ("serving", "green")}
    assert state.pointer == Pointer(B, A)
    state = after(*READY, canary, promote, rollback)
    assert states(state) == {A: ("serving", "blue"), B: ("kept", "green")}
    assert state.pointer == Pointer(A, B, rolled_back=True)
    assert [(act.what, act.reason) for act in state.records[B].history] == [
        ("build", ""),
        ("ready", ""),
        ("gate", ""),
        ("promote to 5 % of the members", ""),
        ("promote", "better"),
        ("rollback", "worse"),
    ]
    assert [act.what for act in state.records[A].history] == ["found", "promote", "rollback"]
    assert state.records[A].since == AT + timedelta(hours=1)


def test_a_rollback_is_not_undone_by_its_repetition() -> None:
    """Also not after a canary of what was left: going on to the kept one would put the bad one before all members."""
    state = after(*READY, promote, rollback)
    assert rollback(state) == []
    state = after(*READY, promote, rollback, canary)
    assert state.pointer == Pointer(A, B, Canary(B, 0.05, AT))
    state = state.with_records(rollback(state))
    assert state.pointer == Pointer(A, B, rolled_back=True)
    assert rollback(state) == []


def test_a_canary_ends_once_and_only_if_it_is_the_one_that_was_judged() -> None:
    """A rollback after that does not go on to the kept one, either."""
    state = after(*READY, promote, rollback, canary)
    for other in (Canary(B, 0.05, AT + timedelta(seconds=1)), Canary(B, 0.06, AT), Canary(C, 0.05, AT)):
        assert acts.end_canary(state, other, by()) == []
    state = state.with_records(acts.end_canary(state, Canary(B, 0.05, AT), by(reason="too slow")))
    assert (state.pointer, states(state)[B][0]) == (Pointer(A, B, rolled_back=True), "kept")
    assert (state.records[B].history[-1].what, state.records[B].history[-1].reason) == ("end of the canary", "too slow")
    assert acts.end_canary(state, Canary(B, 0.05, AT), by()) == []
    assert rollback(state) == []


def test_the_next_build_takes_the_place_of_the_kept_one() -> None:
    state = after(*READY, promote)
    state = state.with_records(acts.build(state, package(C), GOAL, by()))
    assert states(state) == {A: ("retired", None), B: ("serving", "green"), C: ("building", "blue")}
    assert state.pointer == Pointer(B)


def test_what_was_retired_can_be_built_again_from_nothing() -> None:
    state = after(*READY)
    state = state.with_records(acts.retire(state, B, by()))
    assert states(state) == {A: ("serving", "blue"), B: ("retired", None)}
    state = state.with_records(build(state))
    assert (states(state)[B], state.records[B].gate) == (("building", "green"), None)
    assert [act.what for act in state.records[B].history] == ["build", "ready", "gate", "retire", "build"]


def test_what_is_ready_is_given_room_by_force() -> None:
    """A retriever may lack room for it where its other processes had it."""
    state = after(*READY)
    assert acts.build(state, package(B), GOAL, by(), rate=5.0) == []
    (forced,) = acts.build(state, package(B), GOAL, by(), rate=5.0, force=True)
    assert forced == replace(state.records[B], ignores_room=True, history=forced.history)
    assert forced.history[-1].what == "build with force"
    assert acts.build(state.with_records([forced]), package(B), GOAL, by(), force=True) == []


def test_the_kept_one_is_retired_after_a_day_or_by_force() -> None:
    state = after(*READY, promote)
    with pytest.raises(ActRefused, match=r"way back from b-2 since 2026-01-05 10:00 UTC.*--force"):
        acts.retire(state, A, by(23))
    for records in (acts.retire(state, A, by(24)), acts.retire(state, A, by(1), force=True)):
        retired = state.with_records(records)
        assert (states(retired)[A], retired.pointer) == (("retired", None), Pointer(B))


def test_a_gate_is_overruled_by_force_and_a_reason() -> None:
    state = after(found, build, ready)
    for refused in (state, state.with_records(acts.record_gate(state, B, FAILS, by()))):
        with pytest.raises(ActRefused, match="needs a reason"):
            acts.promote(refused, B, by(), force=True)
        forced = refused.with_records(acts.promote(refused, B, by(reason="I know"), force=True))
        assert forced.pointer == Pointer(B, A)


@pytest.mark.parametrize(
    ("steps", "act", "words"),
    [
        ((), build, "nothing serves here yet; nearline up"),
        ((), rollback, "nothing serves here yet"),
        ((found,), lambda state: acts.found(state, package(B), by()), "a-1 serves here.*build '/my models/b-2'"),
        ((found,), lambda state: acts.build(state, package(A), GOAL, by()), "a-1 is serving and complete"),
        ((*READY, promote), lambda state: acts.build(state, package(A), GOAL, by()), "kept.*generations promote a-1"),
        (
            (found, build),
            build_third,
            "b-2 is building.*promote it when it is ready, or.*retire b-2",
        ),
        (
            READY,
            build_third,
            "b-2 is ready already.*promote it, or.*retire b-2",
        ),
        (
            (*READY, promote, rollback, canary),
            build_third,
            "b-2 answers 5 % .*cannot make room.*rollback",
        ),
        ((found,), ready, "no generation b-2; there are: a-1"),
        ((found,), promote, "no generation b-2"),
        ((found, build), promote, "b-2 is still being built.*generations show b-2"),
        ((found, build, gate), canary, "b-2 is still being built"),
        ((found, build, ready), promote, "not passed its gate; run: nearline generations gate b-2$"),
        (
            (found, build, ready, lambda state: acts.record_gate(state, B, FAILS, by())),
            canary,
            r"does not hold: recall \(0.9, bound 0.995\), p99; .*--force --reason",
        ),
        (
            (found, build, ready, lambda state: acts.record_gate(state, B, Gate(AT, []), by())),
            promote,
            "does not hold: it has no figures",
        ),
        ((*READY, promote), lambda state: acts.promote(state, A, by()), "gate a-1; or go back.*rollback"),
        ((*READY, promote), canary, "b-2 serves, so it answers all members"),
        (READY, lambda state: acts.promote(state, B, by(), share=1.0), "above 0 % and below 100 %"),
        (READY, rollback, "no generation is kept beside a-1"),
        (READY, lambda state: acts.retire(state, A, by()), "a-1 serves; promote another one first"),
        ((*READY, canary), lambda state: acts.retire(state, B, by(99), force=True), "canary, so it cannot be retired"),
        ((*READY, lambda state: acts.retire(state, B, by())), ready, "b-2 is retired.*build '/my models/b-2'"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(steps: Sequence[Step], act: Step, words: str) -> None:
    with pytest.raises(ActRefused, match=words):
        act(after(*steps))


def test_the_history_does_not_grow_for_ever() -> None:
    state = after(found, build)
    for number in range(500):
        state = state.with_records(acts.record_gate(state, B, Gate(AT + timedelta(hours=number), []), by()))
    assert 100 <= len(state.records[B].history) < 500
    assert state.records[B].history[-1].what == "gate"


def test_who_acts_and_why_can_always_be_written() -> None:
    act = acts.acting("host\udcff:1", "because \ud800" + "x" * 5_000)
    record = acts.found(Generations(), package(A), act)[0]
    assert decode_record(b"a-1", encode_record(record)) == record
    assert record == acts.found(Generations(), package(A), act)[0]


_IDS = st.sampled_from([A, B, C])
_CALLS: Final[dict[str, st.SearchStrategy[dict[str, Any]]]] = {
    "found": st.fixed_dictionaries({"package": _IDS.map(package)}),
    "build": st.fixed_dictionaries({"package": _IDS.map(package), "goal": st.just(GOAL)}),
    "ready": st.fixed_dictionaries({"generation": _IDS}),
    "record_gate": st.fixed_dictionaries({"generation": _IDS, "gate": st.sampled_from([HOLDS, HOLDS, FAILS])}),
    "promote": st.fixed_dictionaries(
        {"generation": _IDS, "share": st.sampled_from([None, None, 0.05, 0.5]), "force": st.booleans()}
    ),
    "rollback": st.just({}),
    "end_canary": st.fixed_dictionaries({"canary": st.sampled_from([Canary(B, 0.05, AT), Canary(C, 0.5, AT)])}),
    "retire": st.fixed_dictionaries({"generation": _IDS, "force": st.booleans()}),
}
_STEPS = st.lists(
    st.sampled_from(sorted(_CALLS)).flatmap(lambda name: st.tuples(st.just(name), _CALLS[name])), max_size=40
)


_BEGINNINGS: Final = ((), (found,), READY, (*READY, canary), (*READY, promote), (*READY, promote, rollback))


@given(
    st.sampled_from(_BEGINNINGS),
    _STEPS,
    st.lists(st.floats(0, 30), min_size=40, max_size=40),
    st.sampled_from(["", "so"]),
)
def test_whatever_is_done_one_generation_serves_and_all_records_agree(
    beginning: Sequence[Step], steps: list[tuple[str, dict[str, Any]]], hours: list[float], reason: str
) -> None:
    state, clock = after(*beginning), 0.0
    for (name, arguments), passed in zip(steps, hours, strict=False):
        clock += passed
        act = getattr(acts, name)
        try:
            records = act(state, by=by(clock, reason), **arguments)
        except ActRefused:
            continue
        if state.pointer is None and name == "end_canary":
            assert records == [], "where nothing was founded there is no canary to end"
            continue
        state = state.with_records(records)
        _check(state)
        assert act(state, by=by(clock + 0.1, reason), **arguments) == [], "an act can be repeated"
        assert _read_again(state) == state


def _check(state: Generations) -> None:
    """Said here once more, in other words than in `Generations.contradiction`."""
    by_state: dict[str, list[Generation]] = {}
    for record in state.records.values():
        by_state.setdefault(record.state, []).append(record.id)
        assert (record.place is None) == (record.state == "retired")
    live = [record for record in state.records.values() if record.state != "retired"]
    assert len(live) <= 2
    assert len({record.place for record in live}) == len(live)
    assert state.pointer is not None
    assert by_state["serving"] == [state.pointer.serving]
    assert by_state.get("kept", []) == [kept for kept in [state.pointer.kept] if kept is not None]
    if state.pointer.canary is not None:
        assert state.records[state.pointer.canary.generation].state in ("ready", "kept")
    assert state.contradiction() is None


def _read_again(state: Generations) -> Generations:
    assert state.pointer is not None
    read = Generations()
    for record in (*state.records.values(), state.pointer):
        read = read.with_message(key_of_record(record), encode_record(record), Offset(0))
    return read
