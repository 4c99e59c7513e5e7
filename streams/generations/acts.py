"""What may be done to the generations: pure functions from a state of the log to the records that an act adds.

Each act is safe to repeat: on the state that it leads to it returns no records. An act that does not fit the state
raises ActRefused, with a sentence that says what to do instead. Whoever calls one hands it to `change_generations`.
"""

import os
import shlex
import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from msgspec.structs import replace

from schemas.generations import (
    Act,
    Canary,
    Gate,
    GateFigure,
    GenerationRecord,
    PackageSource,
    Pointer,
    Record,
    State,
)
from schemas.ids import Generation
from schemas.topics import context_names
from streams.errors import ActRefused
from streams.generations.contexts_acts import By, Goal, retire_unread, taken_over, version_to_build
from streams.generations.state import PLACES, Generations

KEPT_FOR: Final = timedelta(days=1)
"""For so long the way back is not retired without force."""
_MOST_ACTS: Final = 200
"""Older acts of a generation are forgotten: every act writes the whole history again."""
CANARY_ENDED: Final = "end of the canary"
"""In the history of a generation: it was the canary and left its bounds."""
_TO_SERVING: Final = ("found", "promote", "rollback")
_REASON_CHARS: Final = 1000

__all__ = ["By", "Goal"]


class Package(NamedTuple):
    """A model package that becomes a generation: where it lies, and the digest of its nearline.json."""

    id: Generation
    source: PackageSource
    digest: str


def acting(who: str, reason: str | None = None, at: datetime | None = None) -> By:
    """An act of now, or of another time. What JSON cannot hold is replaced."""
    who, reason = (text.encode("utf-8", "replace").decode() for text in (who, reason or ""))
    return By(who, at or datetime.now(UTC), reason[:_REASON_CHARS])


def this_process() -> str:
    """Who acts where nobody gives a name."""
    return f"{socket.gethostname()}:{os.getpid()}"


def found(state: Generations, package: Package, by: By) -> Sequence[Record]:
    """The very first generation serves at once. Refused where another one serves."""
    if state.serving is None:
        record = GenerationRecord(package.id, "serving", PLACES[0], package.source, package.digest, by.at, begun=by.at)
        return [_changed(record, by, "found"), Pointer(package.id)]
    if state.serving.id == package.id:
        return []
    raise ActRefused(
        f"the generation {state.serving.id} serves here, and this package is {package.id}; to build it beside the "
        f"other: nearline generations build {_argument(package.id, package.source)}"
    )


def build(
    state: Generations, package: Package, goal: Goal, by: By, *, rate: float | None = None, force: bool = False
) -> Sequence[Record]:
    """It takes the place that is free. The kept generation is retired for it; one that is being built or ready is not.
    `goal`: the ends of the context topics now. Building again what was retired begins anew. `rate`: see
    GenerationRecord; None leaves that of one that is being built as it is. `force`: it ignores whether there is room,
    from now on. It reads the version of the contexts that was rebuilt and checked, if there is one."""
    pointer = _pointer(state)
    existing = state.records.get(package.id)
    if existing is not None and existing.state in ("building", "ready"):
        return _build_on(existing, by, rate, force)
    if existing is not None and existing.state != "retired":
        raise ActRefused(
            f"the generation {package.id} is {existing.state} and complete, so there is nothing to build"
            + (f"; to let it answer: nearline generations promote {package.id}" if existing.state == "kept" else "")
        )
    retired: list[Record] = []
    for other in (record for record in state.live if record.state != "serving"):
        if other.state != "kept":
            first = "promote it" if other.state == "ready" else "promote it when it is ready"
            raise ActRefused(
                f"the generation {other.id} is {other.state} already, and only one can be beside the serving one; "
                f"{first}, or: nearline generations retire {other.id}"
            )
        _refuse_canary(pointer, other.id, "make room for another")
        pointer = replace(pointer, kept=None)
        retired = [_changed(other, by, "retire", "retired"), pointer]
    contexts = version_to_build(state)
    if goal and not goal.keys() <= set(context_names(contexts).contexts):
        raise ActRefused(f"version {contexts} of the contexts was checked or given up meanwhile; run the command again")
    (place, *_) = (place for place in PLACES if place != (state.serving and state.serving.place))
    record = GenerationRecord(
        package.id, "building", place, package.source, package.digest, by.at, goal, rate=rate, begun=by.at
    )
    record = replace(record, ignores_room=force, contexts=contexts)
    if existing is not None:
        record = replace(record, history=existing.history)
    records = [_changed(record, by, "build with force" if force else "build"), *retired, *taken_over(state, by)]
    return [*records, *retire_unread(state.with_records(records), by)]


def _build_on(record: GenerationRecord, by: By, rate: float | None, force: bool) -> Sequence[Record]:
    """Of what is being built only this may change; of what is ready only that it ignores whether there is room."""
    rate = None if record.state == "ready" else rate
    changes = []
    if rate is not None and rate != record.rate:
        changes.append(f"at most {rate:g} contexts a second")
    if force and not record.ignores_room:
        changes.append("force")
    if not changes:
        return []
    changed = _changed(record, by, f"build with {' and '.join(changes)}")
    return [replace(changed, rate=rate or record.rate, ignores_room=force or record.ignores_room)]


def ready(state: Generations, generation: Generation, by: By) -> Sequence[Record]:
    """It has reached its goal. Says nothing of whether it is good enough to answer."""
    record = _live(state, generation)
    return [_changed(record, by, "ready", "ready")] if record.state == "building" else []


def record_gate(state: Generations, generation: Generation, gate: Gate, by: By) -> Sequence[Record]:
    """The newest run of the gate counts."""
    record = _live(state, generation)
    return [] if record.gate == gate else [replace(_changed(record, by, "gate"), gate=gate)]


def promote(
    state: Generations, generation: Generation, by: By, *, share: float | None = None, force: bool = False
) -> Sequence[Record]:
    """It serves, and the one that served is kept. With a share it becomes the canary, and answers that share of the
    members. Refused unless it is complete, and its gate holds or is overruled by force and a reason."""
    pointer, record = _pointer(state), _live(state, generation)
    if share is not None and not 0 < share < 1:
        raise ActRefused("a canary's share is above 0 % and below 100 %; for all members leave it out")
    if record.state == "serving":
        if share is None:
            return []
        raise ActRefused(f"the generation {generation} serves, so it answers all members but the canary's already")
    if pointer.canary is not None and (pointer.canary.generation, pointer.canary.share) == (generation, share):
        return []
    _check_complete(record)
    _check_gate(record, by, force)
    if share is not None:
        canary = Canary(generation, share, by.at)
        changed = _changed(record, by, f"promote to {_percent(share)} of the members")
        return [changed, replace(pointer, canary=canary, rolled_back=False)]
    return _swap(state, record, by, "promote", rolled_back=False)


def rollback(state: Generations, by: By) -> Sequence[Record]:
    """Undoes the newest promotion: ends the canary if there is one, else goes back to the kept generation. After that
    there is nothing to undo: what is kept then is the generation that was left."""
    pointer = _pointer(state)
    if pointer.canary is not None:
        return _without_canary(state, pointer, by, "rollback of the canary")
    if pointer.rolled_back:
        return []
    if state.kept is None:
        raise ActRefused(
            f"no generation is kept beside {pointer.serving}, so there is none to go back to; build the one you want: "
            "nearline generations build PACKAGE"
        )
    return _swap(state, state.kept, by, "rollback", rolled_back=True)


def end_canary(state: Generations, canary: Canary, by: By) -> Sequence[Record]:
    """As `rollback` ends it, if it still is this one: not if it has ended, or began again, or has another share."""
    if state.pointer is None or state.pointer.canary != canary:
        return []
    return _without_canary(state, state.pointer, by, CANARY_ENDED)


def retire(state: Generations, generation: Generation, by: By, *, force: bool = False) -> Sequence[Record]:
    """It is fed no more, and what it has may be deleted. Force retires the way back within its day."""
    pointer, record = _pointer(state), known(state, generation)
    if record.state == "retired":
        return []
    if record.state == "serving":
        raise ActRefused(f"the generation {generation} serves; promote another one first, or roll back")
    _refuse_canary(pointer, generation, "be retired")
    moved: list[Record] = []
    if record.state == "kept":
        if not force and by.at < record.since + KEPT_FOR:
            raise ActRefused(
                f"the generation {generation} is the way back from {pointer.serving} since {record.since:%F %R} UTC, "
                "which is less than a day; wait, or give --force"
            )
        moved = [replace(pointer, kept=None)]
    records = [_changed(record, by, "retire", "retired"), *moved]
    return [*records, *retire_unread(state.with_records(records), by)]


def note(state: Generations, generation: Generation, what: str, by: By) -> Sequence[Record]:
    """An act that changes nothing but the history. Whoever repeats it notes it again."""
    return [_changed(known(state, generation), by, what)]


def has_served(record: GenerationRecord) -> bool:
    """True if it answers all members now, or has done so before."""
    return any(act.what in _TO_SERVING for act in record.history)


def _swap(state: Generations, record: GenerationRecord, by: By, what: str, *, rolled_back: bool) -> Sequence[Record]:
    serving = state.serving
    assert serving is not None, "there is a pointer, and it agrees with the records"
    kept = _changed(serving, by, what, "kept")
    return [kept, _changed(record, by, what, "serving"), Pointer(record.id, serving.id, rolled_back=rolled_back)]


def _without_canary(state: Generations, pointer: Pointer, by: By, what: str) -> Sequence[Record]:
    assert state.canary is not None, "what the pointer names is in the records"
    return [_changed(state.canary, by, what), replace(pointer, canary=None, rolled_back=True)]


def _changed(record: GenerationRecord, by: By, what: str, state: State | None = None) -> GenerationRecord:
    """With the act in its history, and perhaps in another state."""
    history = [*record.history, Act(what, by.at, by.who, by.reason)][-_MOST_ACTS:]
    if state is None:
        return replace(record, history=history)
    place = None if state == "retired" else record.place
    return replace(record, state=state, since=by.at, place=place, history=history)


def _pointer(state: Generations) -> Pointer:
    if state.pointer is None:
        raise ActRefused("nothing serves here yet; nearline up makes its package the first generation")
    return state.pointer


def known(state: Generations, generation: Generation) -> GenerationRecord:
    """Raises ActRefused if there is no such generation."""
    record = state.records.get(generation)
    if record is None:
        raise ActRefused(
            f"there is no generation {generation}; there are: {', '.join(sorted(state.records)) or 'none'}"
        )
    return record


def _live(state: Generations, generation: Generation) -> GenerationRecord:
    record = known(state, generation)
    if record.state == "retired":
        raise ActRefused(
            f"the generation {generation} is retired; to have it again: nearline generations build "
            f"{_argument(generation, record.package)}"
        )
    return record


def _check_complete(record: GenerationRecord) -> None:
    if record.state == "building":
        raise ActRefused(
            f"the generation {record.id} is still being built, and would miss posts; how far it is says: "
            f"nearline generations show {record.id}"
        )


def _check_gate(record: GenerationRecord, by: By, force: bool) -> None:
    if force and not by.reason:
        raise ActRefused("what is forced needs a reason, which stays in the history; give --reason")
    if force or (record.gate is not None and record.gate.holds):
        return
    if record.gate is None:
        raise ActRefused(
            f"the generation {record.id} has not passed its gate; run: nearline generations gate {record.id}"
            + ("; or go back to it with: nearline generations rollback" if record.state == "kept" else "")
        )
    failed = ", ".join(_sentence(figure) for figure in record.gate.figures if not figure.holds) or "it has no figures"
    raise ActRefused(
        f"the gate of the generation {record.id} does not hold: {failed}; mend the package, or give "
        "--force --reason TEXT"
    )


def _sentence(figure: GateFigure) -> str:
    bound = "" if figure.bound is None else f", bound {figure.bound:g}"
    return figure.name if figure.figure is None else f"{figure.name} ({figure.figure:g}{bound})"


def _refuse_canary(pointer: Pointer, generation: Generation, what: str) -> None:
    if pointer.canary is not None and pointer.canary.generation == generation:
        raise ActRefused(
            f"the generation {generation} answers {_percent(pointer.canary.share)} of the members as the canary, so it "
            f"cannot {what}; end that first: nearline generations rollback"
        )


def _percent(share: float) -> str:
    return f"{share * 100:g} %"


def _argument(generation: Generation, source: PackageSource) -> str:
    """How a command names this package."""
    return generation if source.folder is None else shlex.quote(source.folder)
