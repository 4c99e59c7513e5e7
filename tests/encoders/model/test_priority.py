"""A model that yields the cores to everybody else: its threads have the lowest priority, and no other thread has."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.model import packed_model
from encoders.model.loading import load_model
from encoders.model.packed_model import PackedModel
from encoders.model.priority import run_below_all_others
from tests.kit.packages import make_tiny_package

PROMPTS = [[number, number + 1, number + 2] for number in range(40)]


def test_only_the_thread_that_asks_for_it_runs_below_all_others() -> None:
    found: list[int] = []

    def ask() -> None:
        run_below_all_others()
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, 0)
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert (found, os.getpriority(os.PRIO_PROCESS, 0)) == ([19], before)


def test_a_model_yields_the_cores_while_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = make_tiny_package(tmp_path / "p", hidden=16, layers=1)
    device = torch.device("cpu")
    yielding: set[int] = set()
    worked: set[int] = set()
    try_batch: Callable[..., bool] = PackedModel._try_batch

    def remember(model: PackedModel, *arguments: object) -> bool:
        worked.add(threading.get_ident())
        return try_batch(model, *arguments)

    monkeypatch.setattr(packed_model, "run_below_all_others", lambda: yielding.add(threading.get_ident()))
    monkeypatch.setattr(PackedModel, "_try_batch", remember)
    model = PackedModel(load_model(package.folder, package.manifest, device), package.manifest, device, 30, threads=2)
    vectors = []
    for yields in (False, True, False):
        worked.clear()
        yielding.clear()
        model.yield_cores(yields)
        vectors.append(np.array(model.run(PROMPTS).vectors))
        assert worked
        assert yielding >= worked if yields else not yielding
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[0], vectors[2])
