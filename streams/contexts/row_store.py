"""The stored rows of one table partition: cells in RocksDB, with the changelog position up to which they are complete.

Owns a folder. Does not know what a cell means or what is in a row. The changelog is the truth: rows that are damaged or
doubtful are thrown away here and restored from it.
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

_POSITION_KEY: Final = b"\0standing"
"""The key of the changelog position. It sorts before the key of every cell."""
_COMPACTED_FILE: Final = "last-shed"
"""An empty file in the folder. Its modification time is when the last full compaction began."""
_THROWN_AWAY_FILE: Final = "thrown-away"
"""A file beside the folders. It counts how often one of them was thrown away."""
_DAMAGED_SUFFIX: Final = ".damaged"
"""The suffix of a file beside a folder. It lists the pieces whose damage had the folder thrown away, and that were not
read without an error since."""
_WRITE_BUFFER_BYTES: Final = 1024 * 1024
"""What one store holds in memory before it goes to a file. A laptop has eight stores. With 16 MB each, their process
grew for an hour of quiet load."""
_CACHE_BYTES: Final = 4 * 1024 * 1024
"""Shared by all stores of a process. RocksDB's default is 32 MB for each store, and an hour fills it. Blocks that are
not in this cache are mostly in the kernel's."""
_OPEN_FILES: Final = 40
"""For one store. RocksDB's default has no limit, and a process is usually allowed 1024 for all of them together."""
_DAMAGE_PREFIXES: Final = ("Corruption: ", "IO error: No such file or directory: ")
"""How RocksDB's errors begin where its files are damaged or gone. rocksdict gives errors as text only."""
_SHORTAGES: Final = ("Too many open files", "No space left on device", "Cannot allocate memory")
"""What the machine has run out of. RocksDB may call the consequence a corruption, but the files are sound."""
_position = struct.Struct(">q")

log = structlog.get_logger(__name__)


class RowStore:
    """`place` is the changelog partition. `changelog_id` is the topic's id: a topic that is deleted and created again
    has another one. Only the compaction may run in another thread."""

    def __init__(self, folder: Path, place: Place, changelog_id: bytes) -> None:
        """Opens the rows that are there. Throws them away if they are damaged or belong to another changelog. Raises
        RowsUnavailable if another process has them open, or if the machine is out of files or space."""
        self.place = place
        self._changelog_id = changelog_id
        self._folder = folder / f"{place.topic}-{place.partition}"
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        self._damage_note = _damage_note(self._folder)
        note = self._damage_note.read_text() if self._damage_note.exists() else ""
        self._damaged_pieces = frozenset(note.splitlines())
        self._compacting = Lock()
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
        """Raises RowsThrownAway if the files are damaged, RowsUnavailable if they cannot be read for another reason."""
        try:
            value: bytes | None = self._db.get(key)
        # rocksdict raises nothing narrower.
        except Exception as error:
            raise self._unreadable(error) from error
        return value

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The cells whose keys begin with `prefix`, in the order of their keys. Raises as `get` does."""
        # Not rocksdict's `items`: at a damaged block it ends as if nothing came after it.
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
        """Writes cells and position in one atomic batch. `position` is the first changelog offset that is not stored.
        Raises RowsThrownAway if the files are damaged, else RowsUnavailable: the disk may be full."""
        batch = WriteBatch(raw_mode=True)
        for key, value in cells.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(_POSITION_KEY, _position.pack(position) + self._changelog_id)
        try:
            self._db.write(batch)
        except Exception as error:
            # If a background merge met a damaged file, RocksDB refuses every write. This scan then raises.
            for _ in self.scan(b""):
                pass
            raise RowsUnavailable(f"the rows in {self._folder} cannot be written: {error}") from error
        self.position = position

    def damage_error(self, piece: str, cause: Exception) -> StreamsError:
        """The error to raise when RocksDB returned `piece` but its content cannot be decoded. `piece` names what was
        decoded, such as one row. The first time the rows are thrown away, to be restored. If the restored piece cannot
        be decoded either, then the changelog itself is damaged, and the rows are kept as they are."""
        if ascii(piece) in self._damaged_pieces:
            return ChangelogDamaged(*self.place, cause)
        error = self.throw_away(cause)
        self._write_note(self._damaged_pieces | {ascii(piece)})
        return error

    def note_readable(self, piece: str) -> None:
        """To be called when `piece` was decoded: damage to it after this counts as the first again."""
        if self._damaged_pieces:
            self._write_note(self._damaged_pieces - {ascii(piece)})

    def _write_note(self, pieces: frozenset[str]) -> None:
        if pieces == self._damaged_pieces:
            return
        self._damaged_pieces = pieces
        self._damage_note.write_text("".join(f"{piece}\n" for piece in sorted(pieces)))

    def throw_away(self, cause: Exception) -> RowsThrownAway:
        """Removes the rows and returns the error to raise. Rows are only restored at a start, when no record is being
        processed."""
        with suppress(RowsUnavailable):
            self.close()
        self._discard(cause)
        return RowsThrownAway(
            f"the rows in {self._folder} were damaged ({cause}); they are thrown away, and restored at the next start"
        )

    def _unreadable(self, error: Exception) -> RowsUnavailable:
        return self.throw_away(error) if _is_damage(error) else self._unavailable("read", error)

    def _unavailable(self, attempt: str, error: Exception) -> RowsUnavailable:
        return RowsUnavailable(f"the rows in {self._folder} cannot be {attempt}: {error}; {_remedy(error)}")

    def is_stale(self, age_s: float) -> bool:
        """True if no worker has opened these rows for `age_s`, or a little less. The changelog may have dropped records
        by now that these rows still hold, so they have to be restored from scratch."""
        return self.position > 0 and _age_s(self._folder / _COMPACTED_FILE) >= age_s

    def wipe(self) -> None:
        """Removes all rows and opens an empty store. The rows have to be restored from the start of the changelog."""
        with suppress(Exception):
            self._db.close()
        shutil.rmtree(self._folder)
        self._write_note(frozenset())
        self._db = self._open()
        self.position = Offset(0)

    def compact_if_due(self, interval_s: float) -> None:
        """Purges deleted and overwritten cells from the files: compacts all of them if the last time was `interval_s`
        ago. Otherwise RocksDB keeps such cells until it happens to merge their files. May run in any thread, beside
        every other call."""
        with self._compacting:
            if self._closed or _age_s(self._folder / _COMPACTED_FILE) < interval_s:
                return
            started_at = time.time()
            try:
                self._db.flush()
                for start, end in self._key_ranges():
                    if self._closed:
                        return
                    self._db.compact_range(start, end, _compact_last_level_too())
                if self._db.property_int_value("rocksdb.background-errors"):
                    raise RowsUnavailable("RocksDB met an error in the background and names it at the next write")
            # rocksdict raises nothing narrower.
            except Exception as error:
                raise RowsUnavailable(f"the rows in {self._folder} cannot be compacted: {error}") from error
            file = self._folder / _COMPACTED_FILE
            file.touch()
            os.utime(file, (started_at, started_at))

    def close(self) -> None:
        """If a compaction is running, waits for the end of its current key range. A second call does nothing."""
        was_closed, self._closed = self._closed, True
        if was_closed:
            return
        try:
            with self._compacting:
                self._db.close()
        except Exception as error:
            raise RowsUnavailable(f"the rows in {self._folder} cannot be closed: {error}") from error

    def _key_ranges(self) -> Iterator[tuple[bytes | None, bytes | None]]:
        """All keys, cut where the files of the last level begin. To compact one range takes a second or so."""
        files = self._db.live_files()
        last_level = max((file["level"] for file in files), default=0)
        cuts = sorted(file["start_key"] for file in files if file["level"] == last_level)[1:]
        return zip((None, *cuts), (*cuts, None), strict=True)

    def _open(self) -> Rdict:
        """Throws the rows away if they are damaged and no process has them open. Every other error of RocksDB can pass
        and says nothing about the rows."""
        try:
            return self._open_db()
        # rocksdict raises nothing narrower.
        except Exception as error:
            if not _is_damage(error):
                raise self._unavailable("opened", error) from error
            self._destroy(error)
        try:
            return self._open_db()
        except Exception as error:
            raise self._unavailable("opened", error) from error

    def _destroy(self, damage: Exception) -> None:
        try:
            # RocksDB refuses this if a process has them open.
            Rdict.destroy(str(self._folder))
        except Exception as error:
            raise self._unavailable("removed", error) from damage
        self._discard(damage)

    def _discard(self, cause: Exception) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        times = _count_up(self._folder.parent / _THROWN_AWAY_FILE)
        log.error("damaged rows were thrown away", folder=str(self._folder), cause=str(cause), times_so_far=times)

    def _open_db(self) -> Rdict:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
        options.set_keep_log_file_num(2)
        options.set_max_open_files(_OPEN_FILES)
        blocks = BlockBasedOptions()
        blocks.set_block_cache(_cache())
        options.set_block_based_table_factory(blocks)
        db = Rdict(str(self._folder), options)
        compacted = self._folder / _COMPACTED_FILE
        if not compacted.exists():
            compacted.touch()
        return db

    def _read_position(self) -> Offset:
        """Wipes rows that belong to a changelog that was deleted since."""
        stored = self.get(_POSITION_KEY)
        if stored is None:
            return Offset(0)
        if stored[_position.size :] != self._changelog_id:
            self.wipe()
            return Offset(0)
        return Offset(_position.unpack_from(stored)[0])


def remove_abandoned(folder: Path, age_s: float) -> None:
    """Removes rows that no worker has compacted for `age_s`: their partition belongs to another worker now. `folder`
    has one folder for each worker of this machine."""
    for compacted in folder.glob(f"*/*/{_COMPACTED_FILE}"):
        if _age_s(compacted) >= age_s:
            # RocksDB refuses this if a process has them open.
            with suppress(Exception):
                Rdict.destroy(str(compacted.parent))
                shutil.rmtree(compacted.parent)
                _damage_note(compacted.parent).unlink(missing_ok=True)


def _damage_note(folder: Path) -> Path:
    return folder.with_name(folder.name + _DAMAGED_SUFFIX)


def _is_damage(error: Exception) -> bool:
    text = str(error)
    return text.startswith(_DAMAGE_PREFIXES) and not any(shortage in text for shortage in _SHORTAGES)


def _remedy(error: Exception) -> str:
    text = str(error)
    if "Too many open files" in text:
        return "allow the process more files (ulimit -n)"
    if "No space left on device" in text:
        return "make room on that disk"
    if "/LOCK" in text:
        return "end the process that has them open"
    return "see to that disk and who may read it, or remove the folder: the rows are restored"


def _count_up(file: Path) -> int:
    """Adds one to the number in the file, and returns it."""
    number = int(file.read_text()) + 1 if file.exists() else 1
    file.write_text(str(number))
    return number


@cache
def _cache() -> Cache:
    return Cache(_CACHE_BYTES)


def _age_s(file: Path) -> float:
    return time.time() - file.stat().st_mtime


def _compact_last_level_too() -> CompactOptions:
    """An ordinary compaction leaves the last level as it is. Other compactions may run at the same time."""
    options = CompactOptions()
    options.set_bottommost_level_compaction(BottommostLevelCompaction.force_optimized())
    options.set_exclusive_manual_compaction(False)
    return options
