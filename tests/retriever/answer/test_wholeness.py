"""When an answer is whole, and what is said when it is not."""

import pytest

from indexer.tiers import Offsets
from retriever.answer.wholeness import covers, holds_everything, reasons
from retriever.reasons import Code, Reason
from schemas.ids import Offset, Partition


def offsets(*by_partition: int | None) -> Offsets:
    return {Partition(number): Offset(offset) for number, offset in enumerate(by_partition) if offset is not None}


@pytest.mark.parametrize(
    ("floor", "position", "whole"),
    [
        pytest.param([5, 7], [5, 7], True, id="they meet"),
        pytest.param([5, 7], [9, 9], True, id="they overlap"),
        pytest.param([5, 7], [9, 6], False, id="one record in between is missing"),
        pytest.param([0, 0], [], True, id="a hot tier that holds everything"),
        pytest.param([0, 1], [5], False, id="a cold tier that has not begun with a partition"),
        pytest.param([0, None], [5, 1], False, id="a hot tier that has not begun with a partition"),
        pytest.param([], [5, 5], False, id="a hot tier that has not begun"),
        pytest.param([], [], False, id="neither has begun"),
    ],
)
def test_the_rule(floor: list[int | None], position: list[int | None], whole: bool) -> None:
    assert covers(offsets(*floor), offsets(*position)) is whole
    assert (reasons(offsets(*floor), offsets(*position), None) == []) is whole


def test_only_a_hot_tier_from_the_very_beginning_holds_everything() -> None:
    assert holds_everything(offsets(0, 0))
    assert not holds_everything(offsets(0, 1))
    assert not holds_everything({})


def test_what_the_feed_says_comes_first() -> None:
    feed = Reason(Code.HOT_BEHIND, "the feed has not reached the end for 20 s")
    assert reasons(offsets(3), offsets(3), feed) == [feed]
    behind = Reason(Code.COLD_BEHIND, "in 1 of 2 partitions the hot tier begins after what the cold tier has written")
    assert reasons(offsets(3, 9), offsets(3, 8), feed) == [feed, behind]


def test_a_hot_tier_that_has_not_begun_is_said_once() -> None:
    feed = Reason(Code.HOT_CATCHING_UP, "the hot feed has not begun to read, it is starting")
    assert reasons({}, offsets(3), feed) == [feed]
    assert [reason.code for reason in reasons({}, offsets(3), None)] == [Code.HOT_CATCHING_UP]
