from hypothesis import example, given
from hypothesis import strategies as st

from contexts.cells import Due
from schemas.ids import Micros
from streams.contexts.due import DueIndex

WAITS_US = 4


def due_us(due: Due) -> Micros:
    return Micros(due.stored_us if due.publishes else due.stored_us + WAITS_US)


changes = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.none() | st.builds(Due, st.integers(0, 20).map(Micros), st.booleans())),
    max_size=40,
)


@example([("a", Due(Micros(at_us), True)) for at_us in (5, 7, 5)], 9, 10)
@given(changes, st.integers(0, 20), st.integers(1, 10))
def test_an_index_gives_what_is_due_earliest_first(
    changed: list[tuple[str, Due | None]], now_us: int, limit: int
) -> None:
    index, plain = DueIndex(due_us), dict[str, Due]()
    for entity_id, due in changed:
        index.set(entity_id, due)
        if due is None:
            plain.pop(entity_id, None)
        else:
            plain[entity_id] = due
    due_now = sorted((due_us(due), entity_id) for entity_id, due in plain.items() if due_us(due) <= now_us)
    due_ids = index.due(Micros(now_us), limit)
    assert [due_us(plain[entity_id]) for entity_id in due_ids] == [at_us for at_us, _ in due_now][:limit]
    assert index.due(Micros(now_us), limit) == due_ids, "an entity stays due until it is set otherwise"
    delayed = {entity_id for entity_id, due in plain.items() if due.publishes}
    assert set(index.delayed_publications(100)) == delayed
    assert index.num_delayed_publications == len(delayed)


def test_an_index_is_rebuilt_from_entries() -> None:
    index = DueIndex(due_us, [("a", Due(Micros(5), True)), ("b", Due(Micros(3), False)), ("c", None)])
    assert index.due(Micros(6), 10) == ["a"]
    assert index.due(Micros(9), 10) == ["a", "b"]
    assert index.delayed_publications(10) == ["a"]
    assert index.num_delayed_publications == 1
