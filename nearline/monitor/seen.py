"""Puts together what is known of each stage, for the judgement: what it has still to read, how it moves, and how its
processes are.

Pure functions. Knows which process belongs to which stage.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from nearline.monitor.judgement import ProcessSeen, StageSeen
from nearline.monitor.movement import Still
from nearline.settings.process_names import parse
from schemas import stages
from schemas.generations import GenerationRecord, PlaceName, State
from schemas.ids import ContextVersion
from schemas.stages import StageReads
from schemas.topics import FIRST_CONTEXTS
from streams.generations.state import Generations
from streams.kafka.records import Place
from streams.operate.lag import StageLag

_STAGE_OF_PROCESS: Final = {"cold": "index"}
"""The others are named like the stage that they run."""
_ORDER: Final = ("broker", "contexts", "trending", "encode", "index", "serve", "monitor", "autopilot")

_Key = tuple[str, PlaceName | None, ContextVersion | None]


class Followed(NamedTuple):
    """A stage of a generation that lives, or of all of them. `version`: of the contexts, if it is not the first.
    `beside`: set where the serving generation reads other contexts."""

    reads: StageReads
    record: GenerationRecord | None
    version: ContextVersion | None = None
    beside: State | None = None

    @property
    def of(self) -> str | None:
        """The generation, or the version of the contexts, if it is not what serves all."""
        if self.record is not None:
            return self.record.id
        return None if self.beside is None else f"version {self.version or FIRST_CONTEXTS}"


class Look(NamedTuple):
    """What the broker has answered, at `at_s` of the clock that `Movement` uses. `ages_s`: of each partition in which
    records wait, by group, for how long the oldest has waited, at least. `held_back`: groups that can read nothing of
    what waits, because a transaction is open."""

    at_s: float
    lags: Mapping[str, StageLag]
    still: Mapping[str, Still | None]
    ages_s: Mapping[str, Mapping[Place, float]]
    held_back: frozenset[str]


def followed_stages(state: Generations) -> list[Followed]:
    """All that have a group."""
    of_generations = [
        Followed(reads, record)
        for record in state.live
        for reads in (stages.encode_reads(record.id, record.contexts), stages.index_reads(record.id))
    ]
    contexts = [_contexts(state, version) for version in state.context_versions]
    return [*contexts, Followed(stages.TRENDING, None), *of_generations]


def _contexts(state: Generations, version: ContextVersion) -> Followed:
    beside: State | None = None
    if state.serving is not None and state.serving.contexts != version:
        record = state.contexts.get(version)
        # One that is built stands back for live records, and so does not stand still.
        beside = "building" if record is not None and record.state == "building" else "kept"
    return Followed(stages.contexts_reads(version), None, None if version == FIRST_CONTEXTS else version, beside)


def stages_seen(followed: Sequence[Followed], processes: Sequence[ProcessSeen], look: Look | None) -> list[StageSeen]:
    """In the order in which an event passes them. `look` is None if the broker has not answered yet."""
    of_stage: dict[_Key, list[ProcessSeen]] = {}
    for process in processes:
        of_stage.setdefault(_key_of(process), []).append(process)
    seen = [_seen(each, of_stage.pop(_key(each), []), look) for each in followed]
    seen += [StageSeen(stage, processes) for (stage, *_), processes in of_stage.items() if stage in _ORDER]
    return sorted(seen, key=lambda each: _ORDER.index(each.stage))


def _key(followed: Followed) -> _Key:
    return followed.reads.stage, None if followed.record is None else followed.record.place, followed.version


def _key_of(process: ProcessSeen) -> _Key:
    name = parse(process.name)
    return _STAGE_OF_PROCESS.get(name.stage, name.stage), name.place, name.version


def _seen(followed: Followed, processes: Sequence[ProcessSeen], look: Look | None) -> StageSeen:
    record, group = followed.record, followed.reads.group
    seen = StageSeen(
        followed.reads.stage,
        processes,
        generation=followed.of,
        state=followed.beside if record is None else record.state,
    )
    lag = None if look is None else look.lags.get(group)
    if look is None or lag is None:
        return seen
    still = look.still.get(group)
    return seen._replace(
        lag=sum(partition.records for partition in lag.partitions.values()),
        lag_before=None if still is None else still.records,
        oldest_age_s=max(look.ages_s.get(group, {}).values(), default=None),
        unmoved_s=None if still is None else look.at_s - still.since_s,
        held_back=group in look.held_back,
    )
