"""A cold tier that is away when a file of the adversary says so."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from indexer.cold.edge_tier import EdgeColdTier
from indexer.errors import TierUnavailable
from indexer.tiers import IndexRecord
from schemas.files import write_whole
from schemas.ids import Kind


def write_cold_faults(file: Path, every: int) -> None:
    """Each so many-th call of `write` and `flush` fails from now on; 1: all of them, 0: none. Whole or not at all."""
    write_whole(file, b"%d" % every)


class FlakyColdTier(EdgeColdTier):
    """Every other failure comes after its effect, as a lost answer does."""

    def __init__(self, faults: Path, *own: Any, **others: Any) -> None:
        super().__init__(*own, **others)
        self._faults = faults
        self._calls = itertools.count(1)
        self._failures = itertools.count()

    def write(self, kind: Kind, records: Sequence[IndexRecord]) -> int:
        fails, late = self._fails()
        changes = super().write(kind, records) if late or not fails else 0
        _fail_if(fails)
        return changes

    def flush(self) -> None:
        fails, late = self._fails()
        if late or not fails:
            super().flush()
        _fail_if(fails)

    def _fails(self) -> tuple[bool, bool]:
        every = int(self._faults.read_text())
        fails = every > 0 and next(self._calls) % every == 0
        return fails, fails and next(self._failures) % 2 == 1


def _fail_if(fails: bool) -> None:
    if fails:
        raise TierUnavailable("the adversary has taken the cold tier away")
