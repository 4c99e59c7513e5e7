"""Decides what the autopilot does next: a pure function of the log, of what is announced, and of the time.

All that it knows stands in the log. So an autopilot that was killed, at any step, goes on where it was; and an act that
an operator has done meanwhile is seen at the next look. It never acts on two generations at a time, and promotes
nothing but what it has built, whose gate holds, and which was the canary for its time.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple

from nearline.autopilot.acts import AUTOPILOT, begin, gate_words, since_its_building
from schemas.generations import Act, Autopilot, AutopilotWork, Gate, GenerationRecord
from schemas.ids import Generation
from schemas.models import ModelRecord
from streams.errors import ActRefused
from streams.generations.acts import By, Package
from streams.generations.state import Generations

GATE_TRIES: Final = 3
"""The gate is run so many times where nothing but missing measurements keeps it from holding: the retriever may have
been away for a moment."""
GATE_AGAIN_AFTER: Final = timedelta(minutes=5)
_TAKE_OVER: Final = ("promote", "rollback", "retire")
"""How the acts begin by which an operator takes a generation over. To measure its gate, or to change its rate, is none;
nor is the end of a canary by the retriever."""

Models = Mapping[Generation, ModelRecord]
What = Literal["wait", "build", "gate", "canary", "promote", "fail", "leave"]
"""All but to wait are acts."""


class Plan(NamedTuple):
    """How a new generation is tried."""

    canary_share: float
    """Of the members, above 0 and below 1."""
    canary_s: float


class Next(NamedTuple):
    """What comes next, and why. `generation` is None where it waits for nothing in particular."""

    what: What
    why: str
    generation: Generation | None = None
    until: datetime | None = None
    """When a wait is over, if nothing else happens."""


def decide(state: Generations, models: Models, plan: Plan, now: datetime) -> Next:
    autopilot = state.autopilot
    if autopilot is None or not autopilot.on:
        return Next("wait", "it is off")
    if autopilot.work is None:
        return _begin(state, autopilot, models, now)
    return _go_on(state, autopilot.work, plan, now)


def newest_of(models: Models) -> ModelRecord | None:
    """Older ones are never tried: what is newer was published because it is better."""
    return max(models.values(), key=lambda model: (model.published_at, model.generation), default=None)


def _begin(state: Generations, autopilot: Autopilot, models: Models, now: datetime) -> Next:
    model = newest_of(models)
    if model is None:
        return Next("wait", "no model is announced on the topic models")
    generation = model.generation
    if generation in autopilot.failed:
        return Next("wait", f"the newest model {generation} failed: {autopilot.failed[generation]}", generation)
    record = state.records.get(generation)
    if record is not None:
        return Next("wait", _why_known(record), generation)
    try:
        # Asked only for its refusals.
        begin(state, Package(generation, model.package, model.digest), {}, By(AUTOPILOT, now))
    except ActRefused as refused:
        return Next("wait", str(refused), generation)
    return Next("build", f"it was published at {model.published_at:%F %T} UTC, as the newest model", generation)


def _why_known(record: GenerationRecord) -> str:
    if record.state == "serving":
        return f"the newest model {record.id} serves"
    last = f", since {_words(record.history[-1])}" if record.history else ""
    return f"the newest model {record.id} is {record.state}{last}; the autopilot leaves it to operators"


def _go_on(state: Generations, work: AutopilotWork, plan: Plan, now: datetime) -> Next:
    record = state.records.get(work.generation)
    if record is None or record.begun != work.begun:
        return Next("leave", "it is not the one that the autopilot has built", work.generation)
    if (end := _end_of_work(state, record, work)) is not None:
        return end
    if record.state == "building":
        return Next("wait", "it is being built", record.id)
    return _after_the_gate(record, work, plan, now) if _holds(record.gate) else _gate(record, work, now)


def _end_of_work(state: Generations, record: GenerationRecord, work: AutopilotWork) -> Next | None:
    """What is left to do where others have acted on the generation, or have ended its canary."""
    canary = state.pointer.canary if state.pointer is not None else None
    is_canary = canary is not None and canary.generation == record.id
    if record.state not in ("building", "ready"):
        return Next("leave", f"it is {record.state}{_since_last(record)}", record.id)
    if (taken := _taken_over(record, work)) is not None:
        return Next("leave", f"an operator took it over: {_words(taken)}", record.id)
    if work.step == "canary" and not is_canary:
        return Next("fail", f"its canary has ended{_since_last(record)}", record.id)
    if canary is not None and is_canary and (work.step != "canary" or canary.since != work.since):
        return Next("leave", "an operator made it the canary", record.id)
    return None


def _gate(record: GenerationRecord, work: AutopilotWork, now: datetime) -> Next:
    """The gate was not run yet, or does not hold."""
    gate = record.gate
    if gate is None:
        return Next("gate", "it is complete", record.id)
    failing = [figure for figure in gate.figures if not figure.holds]
    if any(figure.figure is not None for figure in failing) or not failing:
        return Next("fail", gate_words(gate), record.id)
    num_tries = sum(act.what == "gate" for act in since_its_building(record, work))
    if num_tries >= GATE_TRIES:
        return Next("fail", f"{gate_words(gate)}; measured {num_tries} times", record.id)
    again_at = gate.at + GATE_AGAIN_AFTER
    if now < again_at:
        return Next("wait", f"{gate_words(gate)}; it is measured again", record.id, again_at)
    return Next("gate", f"try {num_tries + 1} of {GATE_TRIES}: {gate_words(gate)}", record.id)


def _after_the_gate(record: GenerationRecord, work: AutopilotWork, plan: Plan, now: datetime) -> Next:
    if work.step == "build":
        return Next("canary", "its gate holds", record.id)
    until = work.since + timedelta(seconds=plan.canary_s)
    if now < until:
        return Next("wait", "it is the canary", record.id, until)
    return Next("promote", f"it kept within its bounds as the canary since {work.since:%F %T} UTC", record.id)


def _holds(gate: Gate | None) -> bool:
    return gate is not None and gate.holds


def _taken_over(record: GenerationRecord, work: AutopilotWork) -> Act | None:
    """The newest act of an operator by which the generation is theirs."""
    acts = reversed(since_its_building(record, work))
    return next((act for act in acts if act.who != AUTOPILOT and act.what.startswith(_TAKE_OVER)), None)


def _since_last(record: GenerationRecord) -> str:
    return f", by {_words(record.history[-1])}" if record.history else ""


def _words(act: Act) -> str:
    return f"{act.what} of {act.who}" + (f" ({act.reason})" if act.reason else "")
