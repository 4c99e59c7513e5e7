"""Ids as numbers: references, and when a number may stand for another id."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.id_table import KEPT_S, UNKNOWN, IdTable
from indexer.tiers import Numbers
from schemas.ids import PostId


class SetSeconds:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def ids(*names: str) -> list[PostId]:
    return [PostId(name) for name in names]


def test_an_id_keeps_its_number() -> None:
    table = IdTable()
    first = table.intern(ids("p1", "p2", "p1"))
    assert first[0] == first[2] != first[1]
    assert table.intern(ids("p2")).tolist() == [first[1]]
    assert table.find({"p1": None}.keys()).tolist() == [first[0]]
    assert table.ids(first) == ["p1", "p2", "p1"]
    assert (first.dtype, len(table)) == (np.int32, 2)


def test_an_unknown_id_is_not_added_by_looking_for_it() -> None:
    table = IdTable()
    assert table.find(ids("p1")).tolist() == [UNKNOWN]
    assert len(table) == 0
    assert (table.intern([]).tolist(), table.find([]).tolist(), table.ids(table.find([]))) == ([], [], [])


def test_a_released_number_still_has_its_id_for_a_while() -> None:
    clock = SetSeconds()
    table = IdTable(clock)
    numbers = table.intern(ids("p1"))
    table.release(numbers)
    clock.now += KEPT_S
    other = table.intern(ids("p2"))
    assert other[0] != numbers[0]
    assert table.ids(numbers) == ["p1"]
    assert table.find(ids("p1")).tolist() == numbers.tolist()


def test_then_another_id_gets_the_number() -> None:
    clock = SetSeconds()
    table = IdTable(clock)
    numbers = table.intern(ids("p1"))
    table.release(numbers)
    clock.now += KEPT_S + 2
    table.intern(ids("p2"))
    assert table.find(ids("p1")).tolist() == [UNKNOWN]
    clock.now += KEPT_S + 2
    assert table.intern(ids("p3")).tolist() == numbers.tolist()
    assert len(table) == 2


def test_whoever_finds_an_id_at_the_last_moment_has_time_to_use_its_number() -> None:
    """A search looks the ids of its filters up, and then the slots of these numbers."""
    clock = SetSeconds()
    table = IdTable(clock)
    table.release(table.intern(ids("p1")))
    clock.now += KEPT_S + 2
    found = table.find(ids("p1"))
    other = table.intern(ids("p2"))
    clock.now += KEPT_S
    assert len({*table.intern(ids("p3", "p1")).tolist(), *other.tolist(), *found.tolist()}) == 4
    assert table.ids(found) == ["p1"]


def test_an_id_that_comes_back_meanwhile_keeps_its_number() -> None:
    clock = SetSeconds()
    table = IdTable(clock)
    numbers = table.intern(ids("p1"))
    table.release(numbers)
    assert table.intern(ids("p1")).tolist() == numbers.tolist()
    clock.now += KEPT_S + 2
    assert table.intern(ids("p2")).tolist() != numbers.tolist()
    assert table.ids(numbers) == ["p1"]


def test_an_id_that_is_released_twice_at_once_frees_one_number() -> None:
    clock = SetSeconds()
    table = IdTable(clock)
    for _ in range(2):
        table.release(table.intern(ids("p1")))
    for _ in range(2):
        clock.now += KEPT_S + 2
        table.intern(ids("p4"))
    assert len(set(table.intern(ids("p2", "p3")).tolist())) == 2


def test_each_reference_counts() -> None:
    clock = SetSeconds()
    table = IdTable(clock)
    numbers = table.intern(ids("p1", "p1"))
    table.release(numbers[:1])
    clock.now += KEPT_S + 2
    table.intern(ids("p2"))
    assert table.find(ids("p1")).tolist() == numbers[:1].tolist()
    table.release(numbers[:1])
    with pytest.raises(ValueError, match="more often"):
        table.release(numbers[:1])


def test_many_ids_in_little_time_use_the_freed_numbers() -> None:
    clock = SetSeconds()
    table = IdTable(clock)
    for turn in range(80):
        clock.now += 1
        numbers = table.intern([PostId(f"p{turn}-{number}") for number in range(1000)])
        assert len(set(numbers.tolist())) == 1000
        table.release(numbers)
    assert max(numbers.tolist()) < (2 * KEPT_S + 8) * 1000


NAMES = st.sampled_from(ids("p1", "p2", "p3", "p4", "p5"))
STEPS = st.lists(st.one_of(st.tuples(st.booleans(), st.lists(NAMES, max_size=6)), st.integers(1, 9)), max_size=60)


@given(STEPS)
def test_any_order_of_steps_keeps_every_referenced_id(steps: list[tuple[bool, list[PostId]] | int]) -> None:
    """Compares with a plain count of references."""
    clock = SetSeconds()
    table = IdTable(clock)
    held: dict[PostId, list[int]] = {}
    for step in steps:
        if isinstance(step, int):
            clock.now += step
            continue
        adds, names = step
        if adds:
            for name, number in zip(names, table.intern(names).tolist(), strict=True):
                held.setdefault(name, []).append(number)
        else:
            for name in names:
                if held.get(name):
                    table.release(np.array([held[name].pop()], np.int32))
        numbers = {name: held[name] for name in held if held[name]}
        assert len({number for own in numbers.values() for number in own}) == len(numbers), "two ids share a number"
        for name, own in numbers.items():
            assert set(own) == set(table.find([name]).tolist())
            assert table.ids(np.array(own, np.int32)) == [name] * len(own)


def test_many_threads_agree_about_the_numbers() -> None:
    table = IdTable()
    names = [PostId(f"p{number}") for number in range(3000)]
    results: list[Numbers] = []
    threads = [threading.Thread(target=lambda: results.append(table.intern(names))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all((numbers == results[0]).all() for numbers in results)
    for numbers in results:
        table.release(numbers)
