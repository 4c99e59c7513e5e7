"""When a call is tried again: only what may pass, only while there is time, and never more than the budget has."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearline.client.retries import MAX_PAUSE_S, MAX_RETRIES, Attempts, Failure, RetryBudget
from retriever.errors import DeadlineExceeded, RequestRefused, RetrieverBusy, RetrieverError, RetrieverUnavailable

GONE = Failure(RetrieverUnavailable("gone"), may_pass=True)


def busy(retry_after_s: float) -> Failure:
    return Failure(RetrieverBusy("busy", retry_after_s=retry_after_s), may_pass=True)


class SetClock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def attempts(budget: RetryBudget | None = None, timeout_s: float = 60.0, **parts: Any) -> Attempts:
    return Attempts(budget or RetryBudget(), timeout_s, **{"uniform": max, **parts})


def test_a_failure_that_may_pass_is_tried_again_after_a_pause_that_grows() -> None:
    call = attempts()
    pauses_s = [call.pause_s(GONE) for _ in range(MAX_RETRIES)]
    assert pauses_s == sorted(set(pauses_s)), "each limit is longer than the one before"
    with pytest.raises(RetrieverUnavailable, match="gone"):
        call.pause_s(GONE)


@given(st.integers(0, MAX_RETRIES - 1), st.floats(0.0, 1.0))
def test_a_pause_is_anything_from_nothing_to_its_limit(earlier: int, share: float) -> None:
    """If all clients waited equally long they would all come back at the same moment."""
    limits_s: list[float] = []

    def uniform(low: float, high: float) -> float:
        assert low == 0.0
        limits_s.append(high)
        return share * high

    call = attempts(uniform=uniform)
    pauses_s = [call.pause_s(GONE) for _ in range(earlier + 1)]
    assert pauses_s == [share * limit_s for limit_s in limits_s]
    assert all(limit_s <= MAX_PAUSE_S for limit_s in limits_s)


def test_what_can_never_pass_is_raised_at_once_and_costs_nothing() -> None:
    budget = RetryBudget(ratio=0.0, capacity=1.0)
    with pytest.raises(RequestRefused, match="wrong"):
        attempts(budget).pause_s(Failure(RequestRefused("wrong"), may_pass=False))
    assert budget.take()


@given(st.floats(0.0, 50.0), st.floats(0.0, 1.0))
def test_nobody_comes_back_before_the_time_that_the_retriever_said(retry_after_s: float, share: float) -> None:
    call = attempts(timeout_s=61.0, clock=SetClock(), uniform=lambda low, high: low + share * (high - low))
    assert retry_after_s <= call.pause_s(busy(retry_after_s)) <= 1.2 * retry_after_s + 1e-9


@given(timeout_s=st.floats(0.001, 60.0), passed_s=st.floats(0.0, 61.0), retry_after_s=st.floats(0.0, 61.0))
def test_a_pause_that_would_outlast_the_time_is_not_begun(
    timeout_s: float, passed_s: float, retry_after_s: float
) -> None:
    clock = SetClock()
    call = attempts(timeout_s=timeout_s, clock=clock)
    clock.now_s += passed_s
    pause_s: float | None = None
    with suppress(RetrieverBusy):
        pause_s = call.pause_s(busy(retry_after_s))
    if pause_s is None:
        assert passed_s + 1.2 * retry_after_s >= timeout_s - 1e-6, "there was time for another attempt"
    else:
        clock.now_s += pause_s
        assert call.left_s() > 0.0


def test_no_attempt_begins_after_the_deadline() -> None:
    clock = SetClock()
    call = attempts(timeout_s=2.0, clock=clock)
    clock.now_s += 1.5
    assert call.left_s() == pytest.approx(0.5)
    clock.now_s += 0.5
    with pytest.raises(DeadlineExceeded):
        call.left_s()


@given(st.lists(st.lists(st.booleans(), max_size=MAX_RETRIES + 1), max_size=300))
def test_all_calls_together_try_again_at_most_ten_times_and_once_in_ten_calls(calls: list[list[bool]]) -> None:
    """Whatever fails (True) in whatever order: a retriever in trouble gets little more load than without retries."""
    budget = RetryBudget()
    retries = 0
    for number, attempts_fail in enumerate(calls, 1):
        call = attempts(budget)
        for fails in attempts_fail:
            if not fails:
                break
            try:
                call.pause_s(GONE)
            except RetrieverError:
                break
            retries += 1
        assert retries <= 10 + 0.1 * number


def test_an_outage_uses_up_the_budget_and_good_calls_fill_it_again() -> None:
    budget = RetryBudget(ratio=0.1, capacity=2.0)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    for _ in range(11):
        budget.count_request()
    assert [budget.take() for _ in range(2)] == [True, False]


def test_a_pause_that_took_too_long_does_not_hide_why_it_was_made() -> None:
    clock = SetClock()
    call = attempts(timeout_s=2.0, clock=clock)
    clock.now_s += call.pause_s(busy(1.0)) + 1.0
    with pytest.raises(RetrieverBusy):
        call.left_s()
