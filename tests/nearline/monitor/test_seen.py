"""Whose stage is whose, where two versions of the contexts are made at the same time."""

from nearline.monitor.judgement import ProcessSeen
from nearline.monitor.seen import followed_stages, stages_seen
from schemas.generations import ContextsRecord, ContextsState, Pointer
from schemas.ids import ContextVersion, Generation
from streams.generations.state import Generations
from tests.kit.data.generations import AT, founded, generation_record

SECOND = ContextVersion(2)
PROCESSES = [ProcessSeen("contexts-0", 1, "running"), ProcessSeen("contexts-v2-0", 2, "running")]


def seen(state: Generations) -> list[tuple[list[str], str | None, str | None]]:
    """Of the context stages: their processes, whose they are, and the state of that."""
    stages = stages_seen(followed_stages(state), PROCESSES, None)
    return [
        ([process.name for process in stage.processes], stage.generation, stage.state)
        for stage in stages
        if stage.stage == "contexts"
    ]


def rebuilt(state: ContextsState) -> Generations:
    return founded().with_records([ContextsRecord(SECOND, state, AT, is_prepared=True)])


def test_a_rebuilt_version_is_named_until_the_serving_generation_reads_it() -> None:
    first = (["contexts-0"], None, None)
    assert seen(rebuilt("building")) == [first, (["contexts-v2-0"], "version 2", "building")]
    assert seen(rebuilt("checked")) == [first, (["contexts-v2-0"], "version 2", "kept")]
    kept, serving = generation_record("a-1", "kept"), generation_record("b-2", "serving", "green", contexts=SECOND)
    records = {record.id: record for record in (kept, serving)}
    state = Generations(records, Pointer(Generation("b-2"), Generation("a-1")))
    assert seen(state) == [(["contexts-0"], "version 1", "kept"), (["contexts-v2-0"], None, None)]
