"""What may be done to the versions of the contexts: pure functions from a state of the log to the records that an act
adds, as in `acts.py` beside this file.

A version is rebuilt, checked against the one that serves, and taken over by the next generation that is built. It is
retired with the last generation that reads it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from msgspec.structs import replace

from schemas.generations import Act, ContextsRecord, ContextsState, Gate, Record
from schemas.ids import ContextVersion, Offset, Partition
from schemas.topics import FIRST_CONTEXTS
from streams.errors import ActRefused
from streams.generations.state import Generations

_MOST_ACTS: Final = 50
"""Older ones are forgotten."""

Goal = dict[str, dict[Partition, Offset]]


class By(NamedTuple):
    """Who acts, when, and why."""

    who: str
    at: datetime
    reason: str = ""


def next_version(state: Generations) -> ContextVersion:
    """No number is used twice."""
    read = (record.contexts for record in state.records.values())
    return ContextVersion(max((FIRST_CONTEXTS, *state.contexts, *read)) + 1)


def rebuild(state: Generations, version: ContextVersion, begins: Goal, by: By, files: str = "") -> Sequence[Record]:
    """Claims this version, which is prepared after that. `begins`: from where on it reads the inputs. `files`: the
    folder of exported events that holds what was before; empty if there was nothing."""
    if state.serving is None:
        raise ActRefused("nothing serves here yet, so there are no contexts to rebuild; start with: nearline up")
    coming = state.coming_contexts
    if coming is None:
        if version != next_version(state):
            raise ActRefused(
                f"another operator has rebuilt version {version} of the contexts meanwhile; run the command again"
            )
        return [_changed(ContextsRecord(version, "building", by.at, begins=begins, files=files), by, "rebuild")]
    if coming.files != files:
        source = f"the files in {coming.files}" if coming.files else "the topics"
        raise ActRefused(
            f"version {coming.version} of the contexts is being rebuilt from {source} already; give it up first: "
            "nearline rebuild contexts --drop"
        )
    return []


def prepared(state: Generations, version: ContextVersion, goal: Goal, by: By) -> Sequence[Record]:
    """Its processes may work now. `goal`: the ends of the inputs."""
    record = _coming(state, version)
    return [] if record.is_prepared else [replace(_changed(record, by, "prepared"), is_prepared=True, goal=goal)]


def refuse_force_without_reason(by: By) -> None:
    """Raises ActRefused."""
    if not by.reason:
        raise ActRefused("what is forced needs a reason, which stays in the history; give --reason")


def checked(
    state: Generations, version: ContextVersion, check: Gate, by: By, *, force: bool = False
) -> Sequence[Record]:
    """Writes down how it compares with the version that serves. If that holds, or by force and with a reason, the next
    generation that is built takes it over. A newer check that does not hold takes that back."""
    record = _coming(state, version)
    if force:
        refuse_force_without_reason(by)
    new_state: ContextsState = "checked" if check.holds or force else "building"
    what = "check" if check.holds else f"check {'overruled by force' if force else 'does not hold'}"
    return [replace(_changed(record, by, what, new_state), check=check)]


def drop(state: Generations, version: ContextVersion, by: By) -> Sequence[Record]:
    """Gives up a version that no generation reads yet."""
    record = state.contexts.get(version)
    if record is not None and record.state == "retired":
        return []
    return [_changed(_coming(state, version), by, "drop", "retired")]


def taken_over(state: Generations, by: By) -> Sequence[Record]:
    """The version that the next generation reads, if it was rebuilt and nobody reads it yet."""
    coming = state.coming_contexts
    return [] if coming is None or coming.state != "checked" else [_changed(coming, by, "taken over", "live")]


def version_to_build(state: Generations) -> ContextVersion:
    """The version that the next generation reads: a rebuilt one that is checked, else that of the serving one."""
    coming = state.coming_contexts
    if coming is not None and coming.state == "checked":
        return coming.version
    return FIRST_CONTEXTS if state.serving is None else state.serving.contexts


def retire_unread(state: Generations, by: By) -> Sequence[Record]:
    """The versions that no generation reads any more."""
    read = {record.contexts for record in state.live}
    no_record = ContextsRecord(FIRST_CONTEXTS, "live", by.at)
    known = {FIRST_CONTEXTS: no_record, **state.contexts}
    return [
        _changed(record, by, "retire", "retired")
        for version, record in known.items()
        if record.state == "live" and version not in read
    ]


def _coming(state: Generations, version: ContextVersion) -> ContextsRecord:
    coming = state.coming_contexts
    if coming is None or coming.version != version:
        raise ActRefused(
            f"version {version} of the contexts is not being rebuilt any more: another operator has given it up, or a "
            "generation has taken it over; look at: nearline generations list"
        )
    return coming


def _changed(record: ContextsRecord, by: By, what: str, state: ContextsState | None = None) -> ContextsRecord:
    record = replace(record, history=[*record.history, Act(what, by.at, by.who, by.reason)][-_MOST_ACTS:])
    return record if state is None or state == record.state else replace(record, state=state, since=by.at)
