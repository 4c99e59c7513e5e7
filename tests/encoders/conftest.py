import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from encoders.encoder import Encoder
from encoders.packages import ModelPackage
from tests.packages import make_tiny_package

torch.set_num_threads(1)
settings.register_profile("encoders", deadline=None)  # a busy machine is no failure
settings.load_profile("encoders")


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
