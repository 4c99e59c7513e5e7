import numpy as np
import pytest
import torch

from encoders.model.host_copies import PinnedCopies


class Device:
    """Notes when the host waits for which batch."""

    def __init__(self) -> None:
        self.batches = 0
        self.waited_for: list[int] = []

    def moment(self, _: torch.device) -> "Moment":
        self.batches += 1
        return Moment(self, self.batches)


class Moment:
    def __init__(self, device: Device, number: int) -> None:
        self._device = device
        self._number = number

    def wait(self) -> None:
        self._device.waited_for.append(self._number)


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def copies(device: Device) -> PinnedCopies:
    return PinnedCopies(torch.device("cpu"), device.moment, pinned=False)


def numbers(length: int, first: int = 0) -> "np.ndarray[tuple[int], np.dtype[np.int32]]":
    return np.arange(first, first + length, dtype=np.int32)


def test_the_host_is_two_batches_ahead_at_most(device: Device, copies: PinnedCopies) -> None:
    waited = []
    for _ in range(5):
        with copies.batch():
            copies.copied(numbers(3))
        waited.append(list(device.waited_for))
    assert waited == [[], [], [1], [1, 2], [1, 2, 3]]


def test_a_batch_does_not_overwrite_what_the_one_before_still_reads(copies: PinnedCopies) -> None:
    # On a CPU nothing is copied, so a tensor shows what is in its buffer.
    with copies.batch():
        first = copies.copied(numbers(5))
    with copies.batch():
        second = copies.copied(numbers(4, 100))
    assert (first.tolist(), second.tolist()) == ([0, 1, 2, 3, 4], [100, 101, 102, 103])
    with copies.batch():
        assert copies.copied(numbers(1000)).tolist() == list(range(1000))
    assert second.tolist() == [100, 101, 102, 103]


def test_a_batch_that_failed_is_waited_for_too(device: Device, copies: PinnedCopies) -> None:
    def fail() -> None:
        with copies.batch():
            copies.copied(numbers(3))
            raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        fail()
    for _ in range(2):
        with copies.batch():
            copies.copied(numbers(3))
    assert device.waited_for == [1]
