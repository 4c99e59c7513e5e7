"""A cold tier that is obviously right: a text file with a line for each change, written to the disk at `flush`."""

import os
from collections.abc import Sequence
from pathlib import Path

from indexer.errors import TierRefused, TierUnavailable
from indexer.tiers import Beat, IndexRecord, Offsets, no_beat
from schemas.ids import Kind, Micros


class JournalTier:
    """Has only what the index loop calls. With `fail_every` each n-th call of `write` or `flush` is an outage. A record
    of an id in `refused` raises TierRefused."""

    def __init__(self, path: Path, *, fail_every: int = 0, refused: frozenset[str] = frozenset()) -> None:
        self.path = path
        self.revisions: dict[str, tuple[int, bool]] = {}
        self.received: list[str] = []
        self.received_again: list[str] = []
        self.position: Offsets = {}
        self.calls = self.swept = self.flushes = 0
        self._fail_every = fail_every
        self._refused = refused
        self._lines: list[str] = []
        if path.exists():
            for line in path.read_text().splitlines():
                entity, revision, deleted = line.split()
                self.revisions[entity] = (int(revision), deleted == "True")

    def write(self, kind: Kind, records: Sequence[IndexRecord], *, again: bool = False) -> int:
        self._maybe_fail()
        refused = self._refused.intersection(record.embedding.entity_id for record in records)
        if refused:
            raise TierRefused(f"{sorted(refused)[0]} has the wrong dimension")
        received = self.received_again if again else self.received
        received += [record.embedding.entity_id for record in records]
        return sum(self._apply(record, again) for record in records)

    def flush(self) -> None:
        self._maybe_fail()
        self.flushes += 1
        with self.path.open("a") as file:
            file.writelines(self._lines)
            file.flush()
            os.fsync(file.fileno())
        self._lines.clear()

    def reached(self, offsets: Offsets) -> None:
        assert self._lines == [], "everything before the position is durable"
        self.position = {**self.position, **offsets}

    def is_empty(self) -> bool:
        return not self.revisions

    def sweep(self, older_than_us: Micros, beat: Beat = no_beat) -> int:
        self.swept += 1
        beat()
        return 0

    def _apply(self, record: IndexRecord, again: bool) -> bool:
        embedding = record.embedding
        stored, _ = self.revisions.get(embedding.entity_id, (0, False))
        if embedding.revision + again <= stored:
            return False
        self.revisions[embedding.entity_id] = (embedding.revision, embedding.deleted)
        self._lines.append(f"{embedding.entity_id} {embedding.revision} {embedding.deleted}\n")
        return True

    def _maybe_fail(self) -> None:
        self.calls += 1
        if self._fail_every and self.calls % self._fail_every == 0:
            raise TierUnavailable("injected: this tier fails at times")
