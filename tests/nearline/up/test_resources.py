from collections.abc import Callable
from pathlib import Path

import pytest

from encoders.package.model_package import ModelPackage
from indexer.settings import HotSettings
from nearline.settings.settings import Settings
from nearline.up import build_place
from nearline.up.build import build_serve
from nearline.up.resources import child_environment, encode_threads, limit_gpu_memory
from retriever.settings import ServeSettings
from streams.settings import EncodeSettings


@pytest.mark.parametrize(
    ("cores", "encode", "threads"),
    [
        (1, EncodeSettings(), 1),
        (2, EncodeSettings(), 1),
        (16, EncodeSettings(), 15),
        (16, EncodeSettings(workers=4), 3),
        (2, EncodeSettings(threads=2), 2),
    ],
)
def test_encode_takes_the_cores_that_searching_leaves(
    cores: int, encode: EncodeSettings, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nearline.up.resources.os.sched_getaffinity", lambda _: set(range(cores)))
    assert encode_threads(Settings(encode=encode)) == threads


def test_every_worker_of_the_retriever_searches_with_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearline.up.resources.os.sched_getaffinity", lambda _: set(range(16)))
    settings = Settings(hot=HotSettings(threads=2), serve=ServeSettings(workers=4))
    assert encode_threads(settings) == 8
    assert child_environment("serve-3", settings)["OMP_NUM_THREADS"] == "2"


def test_each_process_is_told_before_its_libraries_start_threads() -> None:
    settings = Settings(encode=EncodeSettings(threads=3))
    counts = {
        name: child_environment(name, settings)["OMP_NUM_THREADS"] for name in ("contexts-0", "encode-1", "serve")
    }
    assert counts == {"contexts-0": "1", "encode-1": "3", "serve": "1"}


@pytest.mark.parametrize(
    ("devices", "limited"),
    [(["auto", "cuda"], [0]), (["cuda:1", "cpu"], [1]), (["cuda:0", "cuda:3"], [0, 3]), (["cpu"], [])],
)
def test_a_process_takes_its_part_of_the_memory_of_each_gpu(
    devices: list[str], limited: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[float, int]] = []
    monkeypatch.setattr("nearline.up.resources.has_gpu", lambda: True)
    monkeypatch.setattr("torch.cuda.set_per_process_memory_fraction", lambda *arguments: calls.append(arguments))
    limit_gpu_memory(devices, None)
    assert calls == []
    limit_gpu_memory(devices, 0.5)
    assert sorted(calls) == [(0.5, number) for number in limited]


def test_without_a_gpu_nothing_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nearline.up.resources.has_gpu", lambda: False)
    limit_gpu_memory(["auto"], 0.5)


class Limited(Exception):
    pass


@pytest.mark.parametrize(("process", "expected"), [("encode", (["cpu"], 0.25)), ("serve", (["cpu", "auto"], 0.5))])
def test_encode_and_serve_limit_themselves_before_they_take_any(
    process: str, expected: tuple[list[str], float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[list[str], float | None]] = []

    def limit(devices: list[str], fraction: float | None) -> None:
        calls.append((devices, fraction))
        raise Limited

    monkeypatch.setattr("nearline.up.build_place.limit_gpu_memory", limit)
    monkeypatch.setattr("nearline.up.build.limit_gpu_memory", limit)
    settings = Settings(
        data_dir=tmp_path,
        encode=EncodeSettings(device="cpu" if process == "encode" else "auto", gpu_fraction=0.25),
        hot=HotSettings(device="cpu"),
        serve=ServeSettings(gpu_fraction=0.5),
    )
    package = ModelPackage.read(settings.package_folder)
    builds: dict[str, Callable[[], object]] = {
        "encode": lambda: build_place._context_encoder(settings, package, 0),
        "serve": lambda: build_serve(settings, "serve", lambda: None),
    }
    with pytest.raises(Limited):
        builds[process]()
    assert calls == [expected]
