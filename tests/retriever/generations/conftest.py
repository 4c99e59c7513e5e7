"""Generations that open and close while the test runs."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.kit.open_generations import Start, running_generations


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda openings: stack.enter_context(running_generations(openings))
