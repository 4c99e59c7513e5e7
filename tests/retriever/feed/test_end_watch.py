"""When a feed counts as following closely, by a clock that the test sets."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retriever.feed.end_watch import EndWatch
from retriever.feed.offsets import PlaceOffsets
from retriever.reasons import Code

STALE_AFTER_S = 10.0


class Watched:
    """A watch whose clock the test sets, for a topic of two partitions."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.watch = EndWatch("the hot feed", STALE_AFTER_S, clock=lambda: self.now_s)

    def ask(self, *ends: int, answer_takes_s: float = 0.0) -> None:
        def answer() -> PlaceOffsets:
            self.now_s += answer_takes_s
            return at(*ends)

        self.watch.ask(answer)

    def move(self, *offsets: int) -> None:
        self.watch.moved(at(*offsets))

    def code(self) -> Code | None:
        problem = self.watch.problem()
        return None if problem is None else problem.code

    def sentence(self) -> str:
        problem = self.watch.problem()
        return "" if problem is None else problem.detail


def at(*offsets: int) -> PlaceOffsets:
    return {("t", partition): offset for partition, offset in enumerate(offsets)}


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_it_knows_how_many_records_are_left_as_long_as_it_hears_of_the_end(watched: Watched) -> None:
    assert watched.watch.records_left() is None
    watched.ask(5, 7)
    assert watched.watch.records_left() == 12
    watched.move(6, 4)
    assert watched.watch.records_left() == 3
    watched.now_s += STALE_AFTER_S + 0.1
    assert watched.watch.records_left() is None


def test_it_has_to_reach_every_end(watched: Watched) -> None:
    assert watched.sentence() == "the hot feed has not begun to read, it is starting"
    watched.ask(5, 3)
    assert (watched.code(), watched.sentence()) == (
        Code.HOT_CATCHING_UP,
        "the hot feed is catching up, 8 records to go",
    )
    watched.move(5, 2)
    assert watched.sentence() == "the hot feed is catching up, 1 records to go"
    watched.move(5, 3)
    assert watched.code() is None
    assert watched.watch.has_caught_up


def test_an_error_before_the_first_record_is_told(watched: Watched) -> None:
    watched.watch.interrupted()
    assert watched.sentence() == "the hot feed has not begun to read; the log of the retriever says why"


def test_an_empty_topic_is_read_whole(watched: Watched) -> None:
    watched.ask(0, 0)
    assert watched.code() is None


def test_without_answers_it_falls_behind_by_the_clock(watched: Watched) -> None:
    watched.ask(5, 3)
    watched.move(5, 3)
    watched.now_s += STALE_AFTER_S
    assert watched.code() is None
    watched.now_s += 1
    assert watched.code() == Code.HOT_BEHIND
    assert watched.sentence() == "the hot feed has been behind the topic for 11 s, it cannot read now"


def test_an_idle_topic_stays_whole_while_the_broker_answers(watched: Watched) -> None:
    watched.move(5, 3)
    for _ in range(100):
        watched.ask(5, 3)
        watched.now_s += 1
        assert watched.code() is None


def test_who_does_not_keep_up_falls_behind(watched: Watched) -> None:
    watched.ask(5, 3)
    watched.move(5, 3)
    for second in range(1, 30):
        watched.now_s += 1
        watched.ask(5 + second, 3)
    assert watched.code() == Code.HOT_BEHIND
    assert watched.sentence() == "the hot feed has been behind the topic for 29 s, 29 records to go"
    watched.move(33, 3)
    assert watched.code() is None, "it has reached the end of a second ago"


def test_who_is_a_few_seconds_late_follows(watched: Watched) -> None:
    for second in range(60):
        watched.ask(second, 0)
        watched.move(second - 3, 0)
        watched.now_s += 1
        assert second < 3 or watched.code() is None


def test_an_answer_counts_from_when_it_was_asked_for(watched: Watched) -> None:
    """Records may have come in while the answer was on its way."""
    watched.move(5, 3)
    watched.ask(5, 3, answer_takes_s=STALE_AFTER_S + 1)
    assert watched.code() == Code.HOT_CATCHING_UP


def test_after_a_restart_it_catches_up_again(watched: Watched) -> None:
    watched.ask(5, 3)
    watched.move(5, 3)
    watched.watch.restart()
    assert watched.code() == Code.HOT_CATCHING_UP
    watched.move(0, 3)
    watched.ask(5, 3)
    assert watched.code() == Code.HOT_CATCHING_UP
    watched.move(5, 3)
    assert watched.code() is None


@given(
    st.lists(st.tuples(st.sampled_from(("write", "read", "ask", "wait", "wait long")), st.integers(0, 1)), max_size=60)
)
def test_it_never_says_more_than_what_was_read(steps: list[tuple[str, int]]) -> None:
    """If it says that all is well, everything that was written `STALE_AFTER_S` ago was read."""
    watched = Watched()
    log: list[list[float]] = [[], []]
    read = [0, 0]
    actions: dict[str, Callable[[int], None]] = {
        "write": lambda partition: log[partition].append(watched.now_s),
        "read": lambda partition: read.__setitem__(partition, min(read[partition] + 1, len(log[partition]))),
        "ask": lambda _: watched.ask(*map(len, log)),
        "wait": lambda _: setattr(watched, "now_s", watched.now_s + 1),
        "wait long": lambda _: setattr(watched, "now_s", watched.now_s + STALE_AFTER_S / 2),
    }
    for step, partition in steps:
        actions[step](partition)
        watched.move(*read)
        if watched.code() is None:
            for records, offset in zip(log, read, strict=True):
                assert all(written_s >= watched.now_s - STALE_AFTER_S for written_s in records[offset:])
