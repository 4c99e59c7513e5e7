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
    if _is_required():
        pytest.fail(how_to_get(name))
    pytest.skip(how_to_get(name))


def needs(name: Program) -> pytest.MarkDecorator:
    """The same for all tests of a module, before their fixtures start anything; where it is required and missing, they
    are not skipped, and fail at its first use."""
    return pytest.mark.skipif(find(name) is None and not _is_required(), reason=how_to_get(name))


def _is_required() -> bool:
    return os.environ.get(REQUIRED) == "1"
