"""The order in which tests run, and which worker runs them (`pytest -n 5`).

All of `tests/e2e` runs on the same worker, because its pipeline uses the cores until its last test is over. The tests
of a module run on the same worker, because they share fixtures. The longest modules begin first, so that no worker
waits for another at the end; the others keep their order, shuffled or not.

Some of the longest use all the processor that they get, others mostly wait for a broker. If all of the first kind ran
first, the cores would be idle for much of the second half. So the two kinds begin together.
"""

from collections.abc import Sequence
from typing import Final

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

TOGETHER: Final = "tests/e2e/"
LONGEST: Final = (
    TOGETHER,
    "tests/chaos/test_short.py",
    "tests/streams/contexts/test_stage.py",  # waits
    "tests/streams/encode/test_replays.py",  # waits
    "tests/streams/test_two_owners.py",  # waits
    "tests/nearline/up/test_up.py",
    "tests/streams/index/test_replays.py",  # waits
    "tests/nearline/demo/test_demo.py",
    "tests/streams/test_deleted_unread.py",  # waits
    "tests/nearline/up/test_run_stage.py",
    "tests/nearline/commands/test_events_in.py",  # waits
    "tests/streams/encode/post_vectors/test_post_vectors.py",  # waits
    "tests/nearline/rebuild/",  # waits
    "tests/streams/index/test_loop.py",  # waits
    "tests/fuzz/test_short.py",
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
