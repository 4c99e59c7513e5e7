"""No question waits longer than it may, whatever hangs: the other tier answers within the deadline."""

import time
from collections.abc import Iterator

import pytest

from retriever.answer.hot_batches import STUCK_S
from retriever.answer.question import Answer
from retriever.errors import RetrieverUnavailable
from retriever.reasons import Code
from tests.kit.raw_clients import Gate
from tests.kit.retrievers import RetrieverSetup, asking_member, codes_of, scored_post
from tests.kit.waiting import until

TIMEOUT_S = 2.0
"""Long enough for a machine that does other things too."""
ON_A_BUSY_MACHINE_S = 10.0
"""There a thread may wake up late. What hangs, hangs for 30 s."""


@pytest.fixture
def retriever() -> Iterator[RetrieverSetup]:
    retriever = RetrieverSetup(warm=False)
    retriever.in_cold(asking_member("m"), scored_post("a", 0.9))
    retriever.in_member_feed(asking_member("m"))
    retriever.in_hot(scored_post("b", 0.5))
    yield retriever
    retriever.close()


def asked_in_time(retriever: RetrieverSetup, member_id: str = "m") -> Answer:
    began_s = time.monotonic()
    answer = retriever.ask(member_id=member_id, timeout_s=TIMEOUT_S)
    assert time.monotonic() - began_s < ON_A_BUSY_MACHINE_S
    return answer


def test_a_cold_tier_that_hangs_is_left_out_and_said(retriever: RetrieverSetup) -> None:
    gate = retriever.cold.tier.search = Gate(retriever.cold.tier.search)
    answer = asked_in_time(retriever)
    assert (answer.post_ids, codes_of(answer), answer.partial) == (["b"], [Code.COLD_LATE], True)
    gate.open()
    until(lambda: len(retriever.under_test.kept) == 1, "the late answer")
    answer = asked_in_time(retriever)
    assert (answer.post_ids, answer.partial) == (["a", "b"], False)


def test_a_kept_answer_does_not_notice_a_cold_tier_that_hangs(retriever: RetrieverSetup) -> None:
    retriever.ask(member_id="m")
    for name in ("search", "posts", "members", "position"):
        setattr(retriever.cold.tier, name, Gate(getattr(retriever.cold.tier, name)))
    retriever.in_hot(scored_post("c", 0.7))
    answer = asked_in_time(retriever)
    assert (answer.post_ids, answer.partial) == (["a", "c", "b"], False)


def test_a_hot_tier_that_hangs_is_left_out_and_said(retriever: RetrieverSetup) -> None:
    gate = retriever.hot.tier.search = Gate(retriever.hot.tier.search)
    answer = asked_in_time(retriever)
    assert (answer.post_ids, codes_of(answer), answer.partial) == (["a"], [Code.HOT_UNAVAILABLE], True)
    time.sleep(STUCK_S)
    answer = asked_in_time(retriever)
    assert (answer.post_ids, codes_of(answer)) == (["a"], [Code.HOT_UNAVAILABLE]), "asked anew: what was kept is older"
    gate.open()
    until(lambda: retriever.under_test._hot_batches._began_s is None, "the hot tier to be well again")
    assert asked_in_time(retriever).post_ids == ["a", "b"]


def test_when_both_hang_it_is_said_in_time(retriever: RetrieverSetup) -> None:
    gates = [Gate(retriever.hot.tier.search), Gate(retriever.cold.tier.search)]
    retriever.hot.tier.search, retriever.cold.tier.search = gates
    began_s = time.monotonic()
    with pytest.raises(RetrieverUnavailable, match="neither tier"):
        retriever.ask(member_id="m", timeout_s=TIMEOUT_S)
    assert time.monotonic() - began_s < ON_A_BUSY_MACHINE_S
    for gate in gates:
        gate.open()
