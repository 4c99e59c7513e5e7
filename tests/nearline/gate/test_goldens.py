"""The check of the golden texts, with a real tiny package."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from encoders.package.manifest import Golden, render_manifest
from encoders.package.model_package import ModelPackage
from nearline.gate.goldens import goldens
from tests.kit.packages import make_tiny_package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return make_tiny_package(tmp_path_factory.mktemp("models") / "tiny", hidden=16, layers=1)


def _with_goldens(package: ModelPackage, *changed: Golden) -> ModelPackage:
    manifest = msgspec.structs.replace(package.manifest, goldens=list(changed))
    (package.folder / "nearline.json").write_bytes(render_manifest(manifest))
    return ModelPackage.load(package.folder)


def test_an_undamaged_package_holds(package: ModelPackage) -> None:
    figure = goldens(package, "cpu")
    assert figure.holds
    assert figure.figure is not None
    assert 0 <= figure.figure < 1e-5
    assert "texts on " in figure.note


def test_a_damaged_golden_text_fails(tmp_path: Path) -> None:
    package = make_tiny_package(tmp_path / "tiny", hidden=16, layers=1)
    first, *others = package.manifest.goldens
    vector = first.as_vector().copy()
    vector[0] += 0.5
    damaged = Golden(first.text, (vector / np.linalg.norm(vector)).tobytes())
    figure = goldens(_with_goldens(package, damaged, *others), "cpu")
    assert not figure.holds
    assert figure.figure is not None
    assert figure.figure > 1e-3
    assert "use another package or another machine" in figure.note
    nan = Golden(first.text, np.full_like(vector, np.nan).tobytes())
    assert not goldens(_with_goldens(package, *others, nan), "cpu").holds
    assert goldens(_with_goldens(package), "cpu").note.startswith("not measured: the package has no golden text")
