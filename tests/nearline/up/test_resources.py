import pytest

from indexer.settings import HotSettings
from nearline.settings.settings import Settings
from nearline.up.resources import child_environment, encode_threads
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
