"""One partition of one table: cells in RocksDB, with the position in the changelog that they stand for.

Owns a folder. Knows neither what a cell means nor what is in a row; the changelog is the truth, and whatever is
doubtful here is thrown away and restored.
"""

import os
import shutil
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Final

import structlog
from rocksdict import (
    BlockBasedOptions,
    BottommostLevelCompaction,
    Cache,
    CompactOptions,
    Options,
    Rdict,
    WriteBatch,
)

from schemas.ids import Offset, Partition
from streams.errors import ChangelogDamaged, RowsThrownAway, RowsUnavailable, StreamsError
from streams.kafka.records import Place

_STANDING: Final = b"\0standing"
"""Sorts before every cell, and is none."""
_SHED: Final = "last-shed"
"""A file in the folder; its time is that of the last `shed`."""
_THROWN_AWAY: Final = "thrown-away"
"""A file beside the folders; it says how often one of them was thrown away."""
_DAMAGED: Final = ".damaged"
"""Ends the name of a file beside a folder: the pieces for which it was thrown away, and that were not read since."""
_UNWRITTEN_BYTES: Final = 1024 * 1024
"""What a table holds in memory before it goes to a file. A laptop has eight of them; with 16 MB each their process grew
for an hour of quiet load."""
_CACHE_BYTES: Final = 4 * 1024 * 1024
"""Of all tables of a process; the engine's own would be 32 MB for each, which an hour fills too. What is not in it is
mostly in the kernel's."""
_OPEN_FILES: Final = 40
"""Of one table. The engine's own is without an end, and the tables of a laptop have together what a process is usually
allowed: 1024."""
_DAMAGE: Final = ("Corruption: ", "IO error: No such file or directory: ")
"""How the engine begins to say that its files are damaged or gone. rocksdict gives its errors as text only."""
_WANT: Final = ("Too many open files", "No space left on device", "Cannot allocate memory")
"""What the machine is short of, also where the engine calls what follows from it a corruption."""
_position = struct.Struct(">q")

log = structlog.get_logger(__name__)


class TablePartition:
    """`place` is its changelog partition; `log_id` the changelog's own id, which no topic made later has."""

    def __init__(self, folder: Path, place: Place, log_id: bytes) -> None:
        """Opens what is there, and throws away what is damaged or of another changelog. Raises RowsUnavailable when
        another process has it open, or the machine is short of files or space."""
        self.place = place
        self._log_id = log_id
        self._folder = folder / f"{place.topic}-{place.partition}"
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        self._note = _note_beside(self._folder)
        self._noted = frozenset(self._note.read_text().splitlines() if self._note.exists() else ())
        self._shedding = Lock()
        self._closed = False
        self._db = self._open()
        try:
            self.position = self._read_position()
        except RowsThrownAway:
            self._db, self._closed, self.position = self._open(), False, Offset(0)

    @property
    def partition(self) -> Partition:
        return self.place.partition

    def get(self, key: bytes) -> bytes | None:
        """Raises RowsThrownAway, or RowsUnavailable where they are sound and cannot be read now."""
        try:
            value: bytes | None = self._db.get(key)
        # rocksdict raises nothing narrower.
        except Exception as error:
            raise self._unreadable(error) from error
        return value

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Raises RowsThrownAway, or RowsUnavailable where they are sound and cannot be read now."""
        # Not the engine's `items`: they end at a damaged block as if nothing came after it.
        cells: Any = self._db.iter()
        cells.seek(prefix)
        while cells.valid() and cells.key().startswith(prefix):
            yield cells.key(), cells.value()
            cells.next()
        try:
            cells.status()
        except Exception as error:
            del cells
            raise self._unreadable(error) from error

    def write(self, cells: Mapping[bytes, bytes | None], position: Offset) -> None:
        """Whole or not at all. `position` is the next changelog offset that is not in here. Raises RowsThrownAway, or
        RowsUnavailable where what was written before is sound: the disk may be full."""
        batch = WriteBatch(raw_mode=True)
        for key, value in cells.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(_STANDING, _position.pack(position) + self._log_id)
        try:
            self._db.write(batch)
        except Exception as error:
            # The engine writes no more when it has met damage beside all this, while it merged files.
            for _ in self.scan(b""):
                pass
            raise RowsUnavailable(f"the rows in {self._folder} cannot be written: {error}") from error
        self.position = position

    def damaged(self, piece: str, cause: Exception) -> StreamsError:
        """Gives the error to be raised where the caller cannot read `piece`, which the engine can. Thrown away and
        restored once, and it is still so: then it is the changelog that is damaged, and the rows are kept as they are.
        """
        if ascii(piece) in self._noted:
            return ChangelogDamaged(*self.place, cause)
        error = self.throw_away(cause)
        self._keep_note(self._noted | {ascii(piece)})
        return error

    def read_well(self, piece: str) -> None:
        """Whenever it is damaged again, it is so anew."""
        if self._noted:
            self._keep_note(self._noted - {ascii(piece)})

    def _keep_note(self, pieces: frozenset[str]) -> None:
        if pieces == self._noted:
            return
        self._noted = pieces
        self._note.write_text("".join(f"{piece}\n" for piece in sorted(pieces)))

    def throw_away(self, cause: Exception) -> RowsThrownAway:
        """Removes what is here and gives the error to be raised: rows are restored at a start, when no record is in
        work."""
        with suppress(RowsUnavailable):
            self.close()
        self._discard(cause)
        return RowsThrownAway(
            f"the rows in {self._folder} were damaged ({cause}); they are thrown away, and restored at the next start"
        )

    def _unreadable(self, error: Exception) -> RowsUnavailable:
        return self.throw_away(error) if _is_damage(error) else self._unavailable("read", error)

    def _unavailable(self, done: str, error: Exception) -> RowsUnavailable:
        return RowsUnavailable(f"the rows in {self._folder} cannot be {done}: {error}; {_mend(error)}")

    def is_stale(self, age_s: float) -> bool:
        """Nobody has owned it for so long, or a little less: that of which nothing is left in the changelog may still
        be in here."""
        return self.position > 0 and _age_s(self._folder / _SHED) >= age_s

    def wipe(self) -> None:
        """Starts again from the beginning of the changelog."""
        with suppress(Exception):
            self._db.close()
        shutil.rmtree(self._folder)
        self._keep_note(frozenset())
        self._db = self._open()
        self.position = Offset(0)

    def shed(self, age_s: float) -> None:
        """Rewrites the files if that was not done for so long, without what was deleted or overwritten: the engine
        keeps it until it happens to merge those files. From any thread, beside all else."""
        with self._shedding:
            if self._closed or _age_s(self._folder / _SHED) < age_s:
                return
            began = time.time()
            try:
                self._db.flush()
                for start, end in self._slices():
                    if self._closed:
                        return
                    self._db.compact_range(start, end, _whole())
                if self._db.property_int_value("rocksdb.background-errors"):
                    raise RowsUnavailable("the engine has met an error meanwhile, and will say it at the next write")
            # rocksdict raises nothing narrower.
            except Exception as error:
                raise RowsUnavailable(f"the rows in {self._folder} cannot be compacted: {error}") from error
            file = self._folder / _SHED
            file.touch()
            os.utime(file, (began, began))

    def close(self) -> None:
        """Waits until a slice that is shed now is done. Closed again it does nothing."""
        was_closed, self._closed = self._closed, True
        if was_closed:
            return
        try:
            with self._shedding:
                self._db.close()
        except Exception as error:
            raise RowsUnavailable(f"the rows in {self._folder} cannot be closed: {error}") from error

    def _slices(self) -> Iterator[tuple[bytes | None, bytes | None]]:
        """All keys, cut where the files of the last level are: a second or so of work each."""
        files = self._db.live_files()
        last = max((file["level"] for file in files), default=0)
        cuts = sorted(file["start_key"] for file in files if file["level"] == last)[1:]
        return zip((None, *cuts), (*cuts, None), strict=True)

    def _open(self) -> Rdict:
        """What is damaged, and is in nobody's hands, is thrown away. Whatever else the engine says can pass, and says
        nothing about the rows."""
        try:
            return self._open_engine()
        # rocksdict raises nothing narrower.
        except Exception as error:
            if not _is_damage(error):
                raise self._unavailable("opened", error) from error
            self._destroy(error)
        try:
            return self._open_engine()
        except Exception as error:
            raise self._unavailable("opened", error) from error

    def _destroy(self, damage: Exception) -> None:
        try:
            # The engine refuses it where somebody has them open.
            Rdict.destroy(str(self._folder))
        except Exception as error:
            raise self._unavailable("removed", error) from damage
        self._discard(damage)

    def _discard(self, cause: Exception) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        times = _count(self._folder.parent / _THROWN_AWAY)
        log.error("damaged rows were thrown away", folder=str(self._folder), cause=str(cause), times_so_far=times)

    def _open_engine(self) -> Rdict:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(_UNWRITTEN_BYTES)
        options.set_keep_log_file_num(2)
        options.set_max_open_files(_OPEN_FILES)
        blocks = BlockBasedOptions()
        blocks.set_block_cache(_cache())
        options.set_block_based_table_factory(blocks)
        opened = Rdict(str(self._folder), options)
        if not (self._folder / _SHED).exists():
            (self._folder / _SHED).touch()
        return opened

    def _read_position(self) -> Offset:
        """Rows of a changelog that is not there any more are worth nothing."""
        stored = self.get(_STANDING)
        if stored is None:
            return Offset(0)
        if stored[_position.size :] != self._log_id:
            self.wipe()
            return Offset(0)
        return Offset(_position.unpack_from(stored)[0])


def remove_abandoned(folder: Path, age_s: float) -> None:
    """Rows that nobody has shed for so long are nobody's: their partition is at another worker now. `folder` has a
    folder for each worker."""
    for shed in folder.glob(f"*/*/{_SHED}"):
        if _age_s(shed) >= age_s:
            # The engine refuses it where somebody has them open.
            with suppress(Exception):
                Rdict.destroy(str(shed.parent))
                shutil.rmtree(shed.parent)
                _note_beside(shed.parent).unlink(missing_ok=True)


def _note_beside(folder: Path) -> Path:
    return folder.with_name(folder.name + _DAMAGED)


def _is_damage(error: Exception) -> bool:
    said = str(error)
    return said.startswith(_DAMAGE) and not any(want in said for want in _WANT)


def _mend(error: Exception) -> str:
    said = str(error)
    if "Too many open files" in said:
        return "allow the process more files (ulimit -n)"
    if "No space left on device" in said:
        return "make room on that disk"
    if "/LOCK" in said:
        return "end the process that has them open"
    return "see to that disk and who may read it, or remove the folder: the rows are restored"


def _count(file: Path) -> int:
    """One more than the file said; returned, and kept in it."""
    number = int(file.read_text()) + 1 if file.exists() else 1
    file.write_text(str(number))
    return number


@cache
def _cache() -> Cache:
    return Cache(_CACHE_BYTES)


def _age_s(file: Path) -> float:
    return time.time() - file.stat().st_mtime


def _whole() -> CompactOptions:
    """The last level too, which an ordinary compaction leaves as it is. Others may go on beside it."""
    options = CompactOptions()
    options.set_bottommost_level_compaction(BottommostLevelCompaction.force_optimized())
    options.set_exclusive_manual_compaction(False)
    return options
