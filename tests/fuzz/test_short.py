"""A short run of every target with a fixed seed, and targets with planted faults that the fuzzer must find."""

from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="atheris has wheels for Linux on x86-64 alone")

from tests.fuzz import run
from tests.fuzz.parts import seeds
from tests.fuzz.run import SHARES, fuzz

INPUTS = 1_000


@pytest.mark.parametrize("name", SHARES)
def test_no_input_crashes_or_hangs(name: str) -> None:
    result = fuzz(f"tests.fuzz.targets:{name}", seeds(name), INPUTS, seed=1)
    assert (result.crashes, result.hangs) == (0, 0), result.printed
    assert result.inputs >= INPUTS


def test_a_crash_is_found_from_coverage_alone() -> None:
    result = fuzz("tests.fuzz.planted:crashes", [b"xx"], 200_000, seed=1)
    assert (result.crashes, result.hangs) == (1, 0)
    assert "KeyError: 'planted'" in result.printed


def test_a_process_that_does_not_end_is_no_fault_of_its_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "END_S", 1.0)
    result = fuzz("tests.fuzz.planted:never_ends", [b"x"], 1_000, seed=1)
    assert (result.crashes, result.hangs) == (0, 0), result.printed
    assert result.inputs >= 1_000


def test_a_hang_is_found_and_a_machine_that_stood_still_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = fuzz("tests.fuzz.planted:hangs", [b"h"], 5_000, seed=1, timeout_s=1)
    assert (result.crashes, result.hangs) == (0, 1)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    result = fuzz("tests.fuzz.planted:stands_still_once", [b"h"], 5_000, seed=1, timeout_s=1)
    assert (result.crashes, result.hangs) == (0, 0)
    assert result.inputs >= 5_000
