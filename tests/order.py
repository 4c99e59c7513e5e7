"""The order in which tests run, and which worker runs them (`pytest -n 4`).

All of `tests/e2e` runs on the same worker, because its pipeline uses the cores until its last test is over. The tests
of a module run on the same worker, because they share fixtures. The longest modules begin first, so that no worker
waits for another at the end; the others keep their order, shuffled or not.
"""

from collections.abc import Sequence
from typing import Final

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

TOGETHER: Final = "tests/e2e/"
LONGEST: Final = (
    TOGETHER,
    "tests/chaos/",
    "tests/nearline/up/test_up.py",
    "tests/nearline/demo/test_demo.py",
    "tests/nearline/up/test_run_stage.py",
    "tests/streams/contexts/test_stage.py",
)


class ModulesTogether(LoadScopeScheduling):
    """For pytest-xdist: gives a worker a whole module, or all of `TOGETHER`."""

    def __init__(self, config: pytest.Config, log: object = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)  # type: ignore[arg-type]

    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER if nodeid.startswith(TOGETHER) else nodeid.partition("::")[0]


def ordered(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The longest first."""
    return sorted(items, key=lambda item: _rank(item.nodeid))


def _rank(nodeid: str) -> int:
    ranks = (rank for rank, start in enumerate(LONGEST) if nodeid.startswith(start))
    return next(ranks, len(LONGEST))
