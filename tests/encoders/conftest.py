import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from encoders.encoder import Encoder
from encoders.package.model_package import ModelPackage
from tests.kit.packages import make_tiny_package
from tests.kit.torch_threads import torch_threads


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """Read only: a test that changes a package makes its own."""
    return make_tiny_package(tmp_path_factory.mktemp("packages") / "tiny")


@pytest.fixture
def encoder(package: ModelPackage) -> Encoder:
    return Encoder.load(package.folder, device="cpu", budget_tokens=256)


@pytest.fixture
def copy(package: ModelPackage, tmp_path: Path) -> Path:
    """A copy of the package that a test may spoil."""
    return Path(shutil.copytree(package.folder, tmp_path / "copy"))
