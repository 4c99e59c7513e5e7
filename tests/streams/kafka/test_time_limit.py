"""Calls with a time limit."""

import threading

import pytest

from streams.errors import Fenced, KafkaUnavailable
from streams.kafka.time_limit import call_within


def test_a_call_that_returns_in_time_has_been_made() -> None:
    called: list[str] = []
    call_within(60, "calling", lambda: called.append("once"))
    assert called == ["once"]


def test_what_the_call_raises_comes_as_it_is() -> None:
    def refused() -> None:
        raise Fenced("another worker has taken over")

    with pytest.raises(Fenced, match="another worker has taken over"):
        call_within(60, "calling", refused)


def test_a_call_that_does_not_return_is_left_behind() -> None:
    gate = threading.Event()

    def hangs() -> None:
        gate.wait(60)

    try:
        with pytest.raises(KafkaUnavailable, match="calling has not ended within 0 s"):
            call_within(0, "calling", hangs)
    finally:
        gate.set()
