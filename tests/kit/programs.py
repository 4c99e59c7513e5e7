"""Programs that only tests need and that may be missing: where they are, or why the test is skipped."""

import os
from pathlib import Path

import pytest

from benchmarks.kit.programs import REQUIRED, Program, find, how_to_get


def program(name: Program) -> Path:
    """Skips the test where it is missing; under `.ci/run`, which requires all of them, the test fails."""
    path = find(name)
    if path is not None:
        return path
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(how_to_get(name))
    pytest.skip(how_to_get(name))
