"""What a version of the contexts leaves to the other one: when it stands back, and who sends dead letters."""

import pytest

from nearline.up.build_contexts import LiveContextsFirst, is_read_by_serving
from schemas.generations import ContextsRecord, ContextsState, Pointer
from schemas.ids import ContextVersion
from schemas.topics import FIRST_CONTEXTS
from streams.generations.state import Generations
from streams.settings import KafkaSettings
from tests.kit.data.generations import AT, founded, generation_record
from tests.kit.instances import NO_BROKER

SECOND = ContextVersion(2)
NOW_MS = 1_000_000.0


def with_contexts(state: ContextsState) -> Generations:
    return founded().with_records([ContextsRecord(SECOND, state, AT, is_prepared=True)])


def pace(state: Generations | None, version: ContextVersion = SECOND) -> LiveContextsFirst:
    return LiveContextsFirst(KafkaSettings(bootstrap_servers=NO_BROKER), lambda: state, version, 2.0)


def test_it_stands_back_while_live_records_wait_for_too_long() -> None:
    building = pace(with_contexts("building"))
    assert building.may_read()
    building.take(int(NOW_MS) - 1_900, NOW_MS)
    assert building.may_read()
    building.take(int(NOW_MS) - 2_100, NOW_MS)
    assert not building.may_read()
    building.take(None, NOW_MS)
    assert building.may_read()


def test_it_goes_on_where_the_serving_stage_stands_still() -> None:
    """Its rows may be damaged, and this is the mend."""
    building = pace(with_contexts("building"))
    stuck_ms = int(NOW_MS) - 5_000
    building.take(stuck_ms, NOW_MS)
    building.take(stuck_ms, NOW_MS + 29_000)
    assert not building.may_read()
    building.take(stuck_ms, NOW_MS + 31_000)
    assert building.may_read()
    building.take(stuck_ms + 1, NOW_MS + 32_000)
    assert not building.may_read(), "it moves again"


@pytest.mark.parametrize(
    ("state", "version"),
    [(with_contexts("checked"), SECOND), (with_contexts("building"), FIRST_CONTEXTS), (None, FIRST_CONTEXTS)],
    ids=["checked", "the serving one", "before the log was read"],
)
def test_others_are_never_held_back(state: Generations | None, version: ContextVersion) -> None:
    other = pace(state, version)
    other.take(int(NOW_MS) - 60_000, NOW_MS)
    assert other.may_read()


def test_only_what_the_serving_generation_reads_sends_dead_letters() -> None:
    for state in (None, Generations(), founded()):
        assert (is_read_by_serving(state, FIRST_CONTEXTS), is_read_by_serving(state, SECOND)) == (True, False)
    kept, serving = generation_record("a-1", "kept"), generation_record("b-2", "serving", "green", contexts=SECOND)
    records = {record.id: record for record in (kept, serving)}
    state = Generations(records, Pointer(serving.id, kept.id))
    assert (is_read_by_serving(state, FIRST_CONTEXTS), is_read_by_serving(state, SECOND)) == (False, True)
