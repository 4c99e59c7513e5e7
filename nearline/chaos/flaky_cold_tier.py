"""A cold tier whose calls fail when the adversary's file says so."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from indexer.cold.edge.tier import EdgeColdTier
from indexer.errors import TierUnavailable
from indexer.tiers import IndexRecord
from schemas.files import write_whole
from schemas.ids import Kind


def write_cold_faults(file: Path, every: int) -> None:
    """From now on every `every`-th call of `write` or `flush` fails: with 1 each call, with 0 none."""
    write_whole(file, b"%d" % every)


class FlakyColdTier(EdgeColdTier):
    """Every second failure comes after the effect, as when only the answer is lost."""

    def __init__(self, faults: Path, *parameters: Any, **options: Any) -> None:
        super().__init__(*parameters, **options)
        self._faults = faults
        self._calls = itertools.count(1)
        self._failures = itertools.count()

    def write(self, kind: Kind, records: Sequence[IndexRecord], *, again: bool = False) -> int:
        fails, is_late = self._next_call()
        changes = super().write(kind, records, again=again) if is_late or not fails else 0
        _fail_if(fails)
        return changes

    def flush(self) -> None:
        fails, is_late = self._next_call()
        if is_late or not fails:
            super().flush()
        _fail_if(fails)

    def _next_call(self) -> tuple[bool, bool]:
        """Whether this call fails, and whether it does so after its effect."""
        every = int(self._faults.read_text())
        fails = every > 0 and next(self._calls) % every == 0
        return fails, fails and next(self._failures) % 2 == 1


def _fail_if(fails: bool) -> None:
    if fails:
        raise TierUnavailable("the adversary has taken the cold tier away")
