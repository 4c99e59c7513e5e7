"""The acts of the autopilot: pure functions from a state of the log to the records that an act adds.

Each is made of the same acts that operators have (`streams/generations/acts.py`), and adds the autopilot's own record,
so that one transaction holds both. When to do what is decided in `decision.py` beside this file.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from msgspec.structs import replace

from schemas.generations import Act, Autopilot, AutopilotAct, AutopilotWork, Gate, GenerationRecord, Record, key_of
from schemas.ids import Generation
from streams.generations import acts
from streams.generations.acts import By
from streams.generations.state import Generations

AUTOPILOT: Final = "autopilot"
"""Who acts. No operator may have this name."""
FAILED: Final = "failed"
"""The act in a generation's history by which the autopilot gives it up."""
_MOST: Final = 50
"""Older acts and failures are forgotten. Of the models only the newest is ever tried, so this is enough."""


def switch(state: Generations, by: By, *, on: bool) -> Sequence[Record]:
    """Switched on again it goes on with what it was working on, unless an operator has changed that meanwhile."""
    if state.autopilot_is_on == on:
        return []
    record = state.autopilot or Autopilot(on, by.at)
    return [replace(_done(record, by, "on" if on else "off"), on=on, since=by.at)]


def begin(state: Generations, package: acts.Package, goal: acts.Goal, by: By) -> Sequence[Record]:
    """Builds a generation beside the serving one. One that the autopilot has given up is retired for it, unless an
    operator has taken that over; the kept one is retired as by any build. Raises ActRefused."""
    record = _switched(state)
    room = by._replace(reason=f"it failed, and makes room for {package.id}")
    retired = [partial(acts.retire, generation=each.id, by=room) for each in state.live if was_given_up(each)]
    work = AutopilotWork(package.id, by.at, "build", by.at)
    return _together(
        state,
        *retired,
        lambda state: acts.build(state, package, goal, by),
        lambda _: [replace(_done(record, by, "build", package.id), work=work)],
    )


def gate(state: Generations, generation: Generation, found: Gate, by: By) -> Sequence[Record]:
    """Writes down what the gate has found, which is also the reason in the histories."""
    record, by = _switched(state), acts.acting(by.who, gate_words(found), by.at)
    done = _done(record, by, "gate holds" if found.holds else "gate does not hold", generation)
    return _together(state, lambda state: acts.record_gate(state, generation, found, by), lambda _: [done])


def start_canary(state: Generations, generation: Generation, share: float, by: By) -> Sequence[Record]:
    """Raises ActRefused."""
    record = _switched(state)
    assert record.work is not None, "only what is worked on becomes the canary"
    work = replace(record.work, step="canary", since=by.at)
    done = replace(_done(record, by, "canary", generation), work=work)
    return _together(state, lambda state: acts.promote(state, generation, by, share=share), lambda _: [done])


def promote(state: Generations, generation: Generation, by: By) -> Sequence[Record]:
    """The work is done with it. Raises ActRefused."""
    done = replace(_done(_switched(state), by, "promote", generation), work=None)
    return _together(state, lambda state: acts.promote(state, generation, by), lambda _: [done])


def fail(state: Generations, generation: Generation, by: By) -> Sequence[Record]:
    """The model is not tried again. Its canary ends. If it could not even be built, only the autopilot's record says
    so; a generation stays for the operator."""
    record = _switched(state)
    failed = {**{name: why for name, why in record.failed.items() if name != generation}, generation: by.reason}
    newest = dict(list(failed.items())[-_MOST:])
    done = replace(_done(record, by, FAILED, generation), work=None, failed=newest)
    steps: list[_Step] = []
    if state.canary is not None and state.canary.id == generation:
        steps.append(lambda state: acts.rollback(state, by))
    if generation in state.records:
        steps.append(lambda state: acts.note(state, generation, FAILED, by))
    return _together(state, *steps, lambda _: [done])


def leave(state: Generations, generation: Generation, by: By) -> Sequence[Record]:
    """An operator has taken the generation over."""
    return [replace(_done(_switched(state), by, "leave", generation), work=None)]


def since_its_building(record: GenerationRecord, work: AutopilotWork) -> Sequence[Act]:
    """What was done to the generation after the autopilot began to build it, whatever the clocks of others say."""
    for at, act in enumerate(record.history):
        if (act.what, act.who, act.at) == ("build", AUTOPILOT, work.begun):
            return record.history[at + 1 :]
    return record.history


def gate_words(found: Gate) -> str:
    """For reasons."""
    if found.holds:
        return f"its {len(found.figures)} figures hold"
    failing = [f"{figure.name} ({figure.note})" for figure in found.figures if not figure.holds]
    return f"its gate does not hold: {', '.join(failing) or 'it has no figures'}"


def hindered(state: Generations, why: str) -> Sequence[Record]:
    """Says why the next act is not possible now."""
    record = _switched(state)
    return [] if record.hindrance == why else [replace(record, hindrance=why)]


def was_given_up(record: GenerationRecord) -> bool:
    """True if the autopilot has given it up, and nobody has done anything to it since."""
    if record.state != "ready" or not record.history:
        return False
    last = record.history[-1]
    return (last.what, last.who) == (FAILED, AUTOPILOT)


_Step = Callable[[Generations], Sequence[Record]]


def _together(state: Generations, *steps: _Step) -> Sequence[Record]:
    """The records of several acts, each on the state that the ones before it lead to. Of one key only the newest."""
    records: dict[bytes, Record] = {}
    for step in steps:
        added = step(state)
        state = state.with_records(added)
        for record in added:
            records.pop(key_of(record), None)
            records[key_of(record)] = record
    return list(records.values())


def _switched(state: Generations) -> Autopilot:
    assert state.autopilot is not None, "it was switched on, or it would not act"
    return state.autopilot


def _done(record: Autopilot, by: By, what: str, generation: Generation | None = None) -> Autopilot:
    """With the act in its history. What hindered it before does not count any more."""
    history = [*record.history, AutopilotAct(what, by.at, by.who, by.reason, generation)][-_MOST:]
    return replace(record, history=history, hindrance="")
