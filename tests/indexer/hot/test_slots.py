"""Free slots, and readers that keep slots from being used again."""

import numpy as np

from indexer.hot.slots import SlotPool, with_spare


def test_slots_are_taken_from_the_lowest_on() -> None:
    pool = SlotPool(10)
    assert pool.take(3).tolist() == [0, 1, 2]
    assert (pool.num_used, pool.has(7), pool.has(8)) == (3, True, False)


def test_what_is_given_back_is_taken_before_unused_slots() -> None:
    pool = SlotPool(10)
    pool.take(4)
    pool.give_back(np.array([1, 3]))
    assert pool.take(1).tolist() == [1]
    assert pool.take(3).tolist() == [3, 4, 5]
    assert pool.num_used == 6


def test_a_slot_is_clearable_when_the_readers_from_before_have_ended() -> None:
    pool = SlotPool(10)
    pool.take(4)
    first, second = pool.begin_reading(), pool.begin_reading()
    pool.blank(np.array([0]))
    third = pool.begin_reading()
    pool.blank(np.array([1]))
    pool.end_reading(second)
    assert pool.clearable().tolist() == []
    pool.end_reading(first)
    assert pool.clearable().tolist() == [0]
    assert not pool.is_clearable()
    pool.blank(np.array([2, 3]))
    pool.end_reading(third)
    assert pool.is_clearable()
    assert pool.clearable().tolist() == [1]
    assert pool.clearable().tolist() == [2, 3]
    assert pool.clearable().tolist() == []


def test_a_tier_of_any_size_has_spare_slots() -> None:
    assert with_spare(1) == 4097
    assert with_spare(1_000_000) == 1_250_000


def test_readers_that_have_ended_are_not_kept() -> None:
    """Also if nothing is ever blanked."""
    pool = SlotPool(10)
    for _ in range(100):
        pool.end_reading(pool.begin_reading())
    assert len(pool._readers) + len(pool._ended) <= 2
