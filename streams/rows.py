"""One partition of one table: cells in RocksDB, with the position in the changelog that they stand for.

Owns a folder. Knows neither what a cell means nor what is in a row; the changelog is the truth, and whatever is
doubtful here is thrown away and restored.
"""

import itertools
import shutil
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from rocksdict import Options, Rdict, WriteBatch

from schemas.ids import Offset, Partition
from streams.errors import RowsUnavailable
from streams.records import Place

_STANDING: Final = b"\0standing"
"""Sorts before every cell, and is none."""
_position = struct.Struct(">q")


class TablePartition:
    """`place` is its changelog partition; `log_id` the changelog's own id, which no topic made later has."""

    def __init__(self, folder: Path, place: Place, log_id: bytes) -> None:
        """Opens what is there. Raises RowsUnavailable, also when another process has it open."""
        self.place = place
        self._log_id = log_id
        self._folder = folder / f"{place.topic}-{place.partition}"
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        self._db = self._open()
        self.position = self._read_position()

    @property
    def partition(self) -> Partition:
        return self.place.partition

    def get(self, key: bytes) -> bytes | None:
        found: bytes | None = self._db.get(key)
        return found

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        found: Iterator[tuple[Any, Any]] = iter(self._db.items(from_key=prefix))
        return itertools.takewhile(lambda cell: cell[0].startswith(prefix), found)

    def write(self, cells: Mapping[bytes, bytes | None], position: Offset) -> None:
        """Whole or not at all. `position` is the next changelog offset that is not in here."""
        batch = WriteBatch(raw_mode=True)
        for key, value in cells.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(_STANDING, _position.pack(position) + self._log_id)
        self._db.write(batch)
        self.position = position

    def wipe(self) -> None:
        """Starts again from the beginning of the changelog."""
        self._db.close()
        shutil.rmtree(self._folder)
        self._db = self._open()
        self.position = Offset(0)

    def close(self) -> None:
        self._db.close()

    def _open(self) -> Rdict:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        # Eight of these are open on a laptop.
        options.set_write_buffer_size(16 * 1024 * 1024)
        options.set_keep_log_file_num(2)
        try:
            return Rdict(str(self._folder), options)
        # rocksdict raises nothing narrower.
        except Exception as error:
            raise RowsUnavailable(
                f"the rows in {self._folder} cannot be opened ({error}); end the process that has them open, "
                "or remove the folder: they are restored"
            ) from error

    def _read_position(self) -> Offset:
        """Rows of a changelog that is not there any more are worth nothing."""
        stored = self.get(_STANDING)
        if stored is None:
            return Offset(0)
        if stored[_position.size :] != self._log_id:
            self.wipe()
            return Offset(0)
        return Offset(_position.unpack_from(stored)[0])
