"""Which names of devices mean something, and what is said of a GPU that is not there."""

import pytest

from indexer.devices import check_name, check_presence
from indexer.errors import NoSuchDevice
from indexer.hot.matrix.devices import new_matrix
from indexer.settings import HotSettings


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:15"])
def test_a_device_is_taken_as_it_is_named(name: str) -> None:
    assert HotSettings(device=name).device == name


@pytest.mark.parametrize("name", ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:01", "cuda:1 ", "cpu:0", "cuda:1\n"])
def test_a_slip_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="give auto, cpu, cuda, or cuda:N"):
        check_name(name)
    with pytest.raises(ValueError, match="give auto, cpu, cuda, or cuda:N"):
        HotSettings(device=name)


def test_a_gpu_that_is_not_there_is_named_with_its_setting() -> None:
    with pytest.raises(NoSuchDevice, match=r"hot\.device is cuda:99, but torch sees \d+ GPUs .*; give auto or cpu"):
        check_presence("hot.device", "cuda:99")


def test_the_cpu_is_always_there() -> None:
    for name in ("auto", "cpu"):
        check_presence("hot.device", name)


def test_a_device_by_number_is_the_one_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[str] = []
    monkeypatch.setattr(
        "indexer.hot.matrix.torch_matrix.TorchMatrix", lambda _dimension, _capacity, device: devices.append(device)
    )
    for name in ("cuda", "cuda:1"):
        new_matrix(8, 4, name, threads=1)
    assert devices == ["cuda", "cuda:1"]
