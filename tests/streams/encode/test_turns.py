"""The turns of an encoder whose device is full for a while."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from prometheus_client import CollectorRegistry

from encoders.errors import DeviceFull, EncodingFailed, Outcome
from streams.encode import turns
from streams.encode.metrics import EncodeMetrics
from streams.encode.turns import EncodeTurns
from streams.errors import Stopped
from tests.kit.data.contexts import post_context
from tests.kit.encoders import HashEncoder, Prepared, vector_of
from tests.kit.running import in_thread
from tests.kit.waiting import until


class FullDevice(HashEncoder):
    """Has no memory for the first `tries` turns."""

    def __init__(self, tries: float) -> None:
        super().__init__()
        self.tries_left = tries
        self.tries = 0

    def run(self, prepared: Prepared) -> list[Outcome]:
        self.tries += 1
        if self.tries_left > 0:
            self.tries_left -= 1
            raise DeviceFull("injected: others hold the memory")
        return super().run(prepared)


class Beats:
    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> None:
        self.number += 1


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadPoolExecutor]:
    monkeypatch.setattr(turns, "_FULL_PAUSE_S", 0.01)
    with ThreadPoolExecutor(1) as pool:
        yield pool


def turns_of(encoder: HashEncoder, device: ThreadPoolExecutor, stop: Event, beats: Beats) -> EncodeTurns:
    metrics = EncodeMetrics(CollectorRegistry())
    return EncodeTurns("post", encoder, device, stop, metrics=metrics, turn_s=1.0, beat=beats)


def test_a_full_device_is_waited_out_with_signs_of_life(device: ThreadPoolExecutor) -> None:
    encoder, beats = FullDevice(tries=3), Beats()
    contexts = [post_context(f"text {number}") for number in range(40)]
    outcomes = turns_of(encoder, device, Event(), beats).encode(contexts)
    assert all((outcome == vector_of(context.text)).all() for context, outcome in zip(contexts, outcomes, strict=True))
    assert beats.number >= 3


def test_who_waits_for_memory_can_be_stopped(device: ThreadPoolExecutor) -> None:
    encoder, stop = FullDevice(tries=float("inf")), Event()
    raised: list[BaseException] = []

    def encode(_: Event) -> None:
        try:
            turns_of(encoder, device, stop, Beats()).encode([post_context("a")])
        except Stopped as error:
            raised.append(error)

    with in_thread(encode):
        until(lambda: encoder.tries >= 2, "a second try")
        stop.set()
        until(lambda: bool(raised), "the end of the turn")


def test_any_other_failure_ends_the_stage(device: ThreadPoolExecutor) -> None:
    class Broken(HashEncoder):
        def run(self, prepared: Prepared) -> list[Outcome]:
            raise EncodingFailed("injected: the device is away")

    with pytest.raises(EncodingFailed, match="the device is away"):
        turns_of(Broken(), device, Event(), Beats()).encode([post_context("a")])
