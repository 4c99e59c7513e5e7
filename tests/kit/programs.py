"""Programs that only tests need and that may be missing: where they are, or why the test is skipped."""

import os
import subprocess
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


def check_metrics(page: str) -> tuple[int, str]:
    """The exit status and the words of Prometheus' own linter; (0, "") for metrics that are as they should be."""
    command = [str(program("promtool")), "check", "metrics"]
    done = subprocess.run(command, input=page, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def _is_required() -> bool:
    return os.environ.get(REQUIRED) == "1"
