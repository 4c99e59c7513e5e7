"""The stored rows of one table partition: cells in RocksDB, with the changelog position up to which they are complete.

Owns a folder. Does not know what a cell means or what is in a row. The changelog is the truth: rows that are damaged or
outdated are removed here. At a start of the worker they are restored from the changelog.
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

from schemas.errors import NewerForm
from schemas.forms import IN_FOLDER, ROWS, refuse_newer
from schemas.ids import Offset, Partition
from streams.contexts.rocksdb_errors import is_damage, remedy
from streams.errors import ChangelogDamaged, RowsThrownAway, RowsUnavailable
from streams.kafka.records import Place

_POSITION_KEY: Final = b"\0standing"
"""The key of the changelog position. It sorts before the key of every cell. The odd name is an old one, which stays
because it is on disk."""
_FORM_KEY: Final = b"\0form"
"""The key of the form of all cells, as a decimal number. It sorts before the key of every cell, too."""
_COMPACTED_FILE: Final = "last-shed"
"""An empty file in the folder. Its modification time is when the last full compaction began, or when the store was made
if there was none. This name too is an old one that stays because it is on disk."""
_THROWN_AWAY_FILE: Final = "thrown-away"
"""A file beside the folders. It counts how often damaged rows were thrown away."""
_DAMAGED_SUFFIX: Final = ".damaged"
"""The suffix of a file beside a folder, the damage note. It lists the pieces that were damaged when the folder was
thrown away. A piece leaves the list when it is next read without an error."""
_WRITE_BUFFER_BYTES: Final = 1024 * 1024
"""How much one store holds in memory before it writes a file. On a laptop one process has eight stores. With 16 MB
each, its memory grew for an hour under light load."""
_CACHE_BYTES: Final = 4 * 1024 * 1024
"""The size of the block cache that all stores of a process share. RocksDB's default is 32 MB for each store, and an
hour of load fills it. Blocks that are not in this cache are mostly in the page cache of the operating system."""
_OPEN_FILES: Final = 40
"""The limit for one store. RocksDB's default has no limit, and a process is usually allowed 1024 open files."""
_position = struct.Struct(">q")

log = structlog.get_logger(__name__)


class RowStore:
    """`place` is the changelog partition. `changelog_id` is the id of its topic: a topic that is deleted and created
    again has another id. All calls but `compact_if_due` and `compacted_at_s` come from one thread."""

    def __init__(self, folder: Path, place: Place, changelog_id: bytes) -> None:
        """Opens the rows that are in `folder`. Removes them first if they are damaged or belong to another changelog.
        Raises RowsUnavailable if another process has them open, or if the machine is out of files or space; NewerForm
        if a newer version has written them."""
        self.place = place
        self._changelog_id = changelog_id
        self._folder = folder / f"{place.topic}-{place.partition}"
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        self._damage_note = _damage_note_file(self._folder)
        pieces = self._damage_note.read_text() if self._damage_note.exists() else ""
        self._damaged_pieces = frozenset(pieces.splitlines())
        self._compacting = Lock()
        self._closed = False
        self._db = self._open()
        self.position = Offset(0)
        self._form = IN_FOLDER[ROWS].written
        """The newest form of any cell."""
        try:
            self._refuse_newer_form()
            stored = self.get(_POSITION_KEY)
        except RowsThrownAway:
            # `get` has closed the store and removed the damaged rows. An empty store is opened in their place.
            self._db, self._closed, stored = self._open(), False, None
        if stored is not None and stored[_position.size :] == changelog_id:
            self.position = Offset(_position.unpack_from(stored)[0])
        elif stored is not None:
            # The rows belong to a changelog that has been deleted since.
            self.reopen_empty()

    @property
    def partition(self) -> Partition:
        return self.place.partition

    def _refuse_newer_form(self) -> None:
        """Rows from before there were forms have no number."""
        stored = int(self.get(_FORM_KEY) or 1)
        try:
            refuse_newer(f"the folder {self._folder}", {ROWS: stored}, IN_FOLDER)
        except NewerForm:
            self.close()
            raise
        self._form = max(stored, self._form)

    def get(self, key: bytes) -> bytes | None:
        """Raises RowsThrownAway if the files are damaged, after removing them. Raises RowsUnavailable if they cannot be
        read for another reason."""
        try:
            value: bytes | None = self._db.get(key)
        # rocksdict raises nothing narrower.
        except Exception as error:
            raise self._throw_away_if_damaged(error) from error
        return value

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The cells whose keys begin with `prefix`, in the order of their keys. Raises as `get` does."""
        # rocksdict's `items` is not used here: at a damaged block it ends as if no cell came after it.
        cells: Any = self._db.iter()
        cells.seek(prefix)
        while cells.valid() and cells.key().startswith(prefix):
            yield cells.key(), cells.value()
            cells.next()
        try:
            cells.status()
        except Exception as error:
            # A living iterator keeps RocksDB's lock, and the rows could not be removed.
            del cells
            raise self._throw_away_if_damaged(error) from error

    def estimated_num_cells(self) -> int:
        """As RocksDB estimates it, without a look at any cell. What was overwritten or deleted counts until RocksDB
        merges its files."""
        number: int | None = self._db.property_int_value("rocksdb.estimate-num-keys")
        return number or 0

    def write(self, cells: Mapping[bytes, bytes | None], position: Offset) -> None:
        """Writes cells and position in one atomic batch. `position` is the first changelog offset that is not stored.
        Raises RowsThrownAway if the files are damaged, and RowsUnavailable for every other error, such as a full
        disk."""
        batch = WriteBatch(raw_mode=True)
        for key, value in cells.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(_FORM_KEY, b"%d" % self._form)
        batch.put(_POSITION_KEY, _position.pack(position) + self._changelog_id)
        try:
            self._db.write(batch)
        except Exception as error:
            # The write may have failed because an earlier merge in the background found a damaged file. Reading
            # everything finds that out: the scan raises RowsThrownAway.
            for _ in self.scan(b""):
                pass
            raise RowsUnavailable(f"the rows in {self._folder} cannot be written: {error}") from error
        self.position = position

    def throw_away_or_blame_changelog(self, piece: str, cause: Exception) -> ChangelogDamaged | RowsThrownAway:
        """Removes the rows, and returns the error to raise. To be called when RocksDB read without an error, but what
        it read cannot be decoded. `piece` is the name of what cannot be decoded, such as one row.

        The next start restores the rows. If the restored piece cannot be decoded either, then the changelog itself is
        damaged: the rows stay as they are, and the error says so."""
        if ascii(piece) in self._damaged_pieces:
            return ChangelogDamaged(*self.place, cause)
        error = self._throw_away(cause)
        self._write_damage_note(self._damaged_pieces | {ascii(piece)})
        return error

    def forget_damage(self, piece: str) -> None:
        """To be called when `piece` was decoded: if it is damaged again later, the rows are thrown away again before
        the changelog is blamed."""
        if self._damaged_pieces:
            self._write_damage_note(self._damaged_pieces - {ascii(piece)})

    def _write_damage_note(self, pieces: frozenset[str]) -> None:
        if pieces == self._damaged_pieces:
            return
        self._damaged_pieces = pieces
        self._damage_note.write_text("".join(f"{piece}\n" for piece in sorted(pieces)))

    def _throw_away_if_damaged(self, error: Exception) -> RowsThrownAway | RowsUnavailable:
        """Removes the rows if `error` says that their files are damaged. Returns the error to raise."""
        return self._throw_away(error) if is_damage(error) else self._unavailable("read", error)

    def _throw_away(self, damage: Exception) -> RowsThrownAway:
        """Closes the store, removes its damaged rows, and returns the error to raise. No empty store is opened here:
        rows are only restored at a start, when no record is being processed."""
        with suppress(RowsUnavailable):
            self.close()
        self._remove_damaged_folder(damage)
        return RowsThrownAway(
            f"the rows in {self._folder} were damaged ({damage}); they are thrown away, and restored at the next start"
        )

    def _unavailable(self, attempted: str, error: Exception) -> RowsUnavailable:
        return RowsUnavailable(f"the rows in {self._folder} cannot be {attempted}: {error}; {remedy(error)}")

    def is_stale(self, age_s: float) -> bool:
        """True if the last full compaction is at least `age_s` ago. A store is compacted regularly while it is open, so
        this one was closed for about that long. Meanwhile the changelog may have dropped tombstones, and the cells that
        they delete would stay in these rows."""
        return self.position > 0 and _age_s(self._folder / _COMPACTED_FILE) >= age_s

    def reopen_empty(self) -> None:
        """Removes sound rows that are outdated, and opens an empty store. All rows have to be restored, from the start
        of the changelog."""
        with suppress(Exception):
            self._db.close()
        shutil.rmtree(self._folder)
        self._write_damage_note(frozenset())
        self._db = self._open()
        self.position = Offset(0)

    def compacted_at_s(self) -> float:
        """When the last full compaction began, or when the store was made if there was none. A cell that was deleted or
        overwritten before is not in the files, unless the changelog still held it when rows were restored since. May
        run in any thread."""
        return (self._folder / _COMPACTED_FILE).stat().st_mtime

    def compact_if_due(self, interval_s: float) -> None:
        """Compacts all files if the last full compaction began `interval_s` ago. This purges deleted and overwritten
        cells, which RocksDB would otherwise keep until it happens to merge their files. May run in any thread, beside
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
                    self._db.compact_range(start, end, _full_compaction_options())
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
        """Ranges that together hold all keys, cut where the files of the last level begin. Compacting one range takes
        about a second."""
        files = self._db.live_files()
        last_level = max((file["level"] for file in files), default=0)
        cuts = sorted(file["start_key"] for file in files if file["level"] == last_level)[1:]
        return zip((None, *cuts), (*cuts, None), strict=True)

    def _open(self) -> Rdict:
        """Opens the rows; an empty store if there are none. If the rows are damaged and no process has them open, they
        are removed first. Every other error of RocksDB may go away by itself and does not mean damage."""
        try:
            return self._open_db()
        # rocksdict raises nothing narrower.
        except Exception as error:
            if not is_damage(error):
                raise self._unavailable("opened", error) from error
            self._throw_away_unopened(error)
        try:
            return self._open_db()
        except Exception as error:
            raise self._unavailable("opened", error) from error

    def _throw_away_unopened(self, damage: Exception) -> None:
        """Removes damaged rows that could not be opened. Raises RowsUnavailable if another process has them open."""
        try:
            # RocksDB refuses this if a process has the rows open.
            Rdict.destroy(str(self._folder))
        except Exception as error:
            raise self._unavailable("removed", error) from damage
        self._remove_damaged_folder(damage)

    def _remove_damaged_folder(self, damage: Exception) -> None:
        """Also counts and logs the loss. The store must be closed."""
        shutil.rmtree(self._folder, ignore_errors=True)
        num_times = _increment(self._folder.parent / _THROWN_AWAY_FILE)
        log.error("damaged rows were thrown away", folder=str(self._folder), cause=str(damage), times_so_far=num_times)

    def _open_db(self) -> Rdict:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
        options.set_keep_log_file_num(2)
        options.set_max_open_files(_OPEN_FILES)
        blocks = BlockBasedOptions()
        blocks.set_block_cache(_block_cache())
        options.set_block_based_table_factory(blocks)
        db = Rdict(str(self._folder), options)
        compacted = self._folder / _COMPACTED_FILE
        if not compacted.exists():
            compacted.touch()
        return db


def remove_abandoned(folder: Path, age_s: float) -> None:
    """Removes rows that no worker has compacted for `age_s`: another worker owns their partition now, and has its own
    copy. `folder` has one folder for each worker of this machine."""
    for compacted in folder.glob(f"*/*/{_COMPACTED_FILE}"):
        if _age_s(compacted) >= age_s:
            # RocksDB refuses this if a process has the rows open.
            with suppress(Exception):
                Rdict.destroy(str(compacted.parent))
                shutil.rmtree(compacted.parent)
                _damage_note_file(compacted.parent).unlink(missing_ok=True)


def _damage_note_file(folder: Path) -> Path:
    return folder.with_name(folder.name + _DAMAGED_SUFFIX)


def _increment(file: Path) -> int:
    """Adds 1 to the number in the file, and returns the sum."""
    number = int(file.read_text()) + 1 if file.exists() else 1
    file.write_text(str(number))
    return number


@cache
def _block_cache() -> Cache:
    return Cache(_CACHE_BYTES)


def _age_s(file: Path) -> float:
    return time.time() - file.stat().st_mtime


def _full_compaction_options() -> CompactOptions:
    """The options for a full compaction: an ordinary one leaves the last level as it is. RocksDB may run other
    compactions at the same time."""
    options = CompactOptions()
    options.set_bottommost_level_compaction(BottommostLevelCompaction.force_optimized())
    options.set_exclusive_manual_compaction(False)
    return options
