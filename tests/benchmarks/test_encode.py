"""The rows of the encoder's benchmark, of seconds that are made up, and its texts."""

from pathlib import Path

import pytest

from benchmarks import encode
from benchmarks.encode import SIZES
from benchmarks.kit.table import Figure

ROWS = (
    "h256: share of the floor, fp32{}",
    "h256: share of the floor, bf16{}",
    "h256: / sentence-transformers, fp32{}",
    "h256: / sentence-transformers, bf16{}",
    "h256: bf16{} / sentence-transformers fp32",
)
SECONDS = {
    "nearline fp32": 4.0,
    "nearline fp32 with kernels": 3.0,
    "nearline bf16": 2.0,
    "nearline bf16 with kernels": 1.0,
    "sentence-transformers fp32": 8.0,
    "sentence-transformers bf16": 6.0,
    "floor fp32": 2.0,
    "floor bf16": 0.5,
}


def rows(monkeypatch: pytest.MonkeyPatch, compiler: str | None) -> dict[str, Figure]:
    monkeypatch.setattr(encode.shutil, "which", lambda _: compiler)
    main_size = next(size for size in SIZES if size.hidden == 256)
    figures = encode._ratios(main_size, {name: [seconds] * 5 for name, seconds in SECONDS.items()})
    return {figure.name: figure for figure in figures}


def test_the_default_setting_has_every_row_and_bound_that_the_kernels_have(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = rows(monkeypatch, "/usr/bin/g++")
    of_default, of_kernels = ([figures[row.format(variant)] for row in ROWS] for variant in ("", " with kernels"))
    assert len(figures) == len([*of_default, *of_kernels])
    assert [figure.value for figure in of_default] == [0.5, 0.25, 2.0, 3.0, 4.0]
    assert [figure.value for figure in of_kernels] == [2 / 3, 0.5, 8 / 3, 6.0, 8.0]
    for default, kernels in zip(of_default, of_kernels, strict=True):
        assert default.bound is not None
        assert kernels.bound is not None
        assert default.bound <= kernels.bound


def test_without_a_compiler_there_is_the_default_setting_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {*rows(monkeypatch, None)} == {row.format("") for row in ROWS}


def test_no_text_is_there_twice_because_the_encoder_would_compute_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def repeated(_: Path | None) -> list[str]:
        return ["applied", "a patch", "applied", "thanks", "applied"]

    monkeypatch.setattr(encode, "texts", repeated)
    assert sorted(encode._corpus(None)) == ["a patch", "applied", "thanks"]
