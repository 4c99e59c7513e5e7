"""The file of a snapshot of the hot tier: a header and many chunks of posts, each with its length and checksum. Knows
neither slots nor searches.

Shapes: K posts of a chunk, D dimensions.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from indexer.errors import SnapshotOfNewerForm, SnapshotRefused
from indexer.hot.batch import Batch
from indexer.hot.change_order import Places
from indexer.tiers import SnapshotMoment
from schemas.forms import HOT_SNAPSHOT, IN_FOLDER
from schemas.ids import Micros, Offset, Partition

_NAME: Final = "hot.snapshot"
_MAGIC: Final = b"nearline hot tier "
"""The file begins with it, and with the number of its form on the same line."""
_MAX_DIGITS: Final = 9
_FRAME: Final = struct.Struct("<QI")
"""Before each part: its length and its CRC-32."""


class Header(Struct):
    dimension: int
    num_posts: int
    floor: dict[Partition, Offset]
    next_offsets: dict[Partition, Offset]
    taken_at_us: Micros

    @property
    def moment(self) -> SnapshotMoment:
        return SnapshotMoment(self.next_offsets, self.taken_at_us)


class Chunk(NamedTuple):
    batch: Batch
    places: Places


class _Stored(Struct, array_like=True):
    """A chunk as it is in the file. Arrays are little-endian."""

    ids: list[str]
    authors: list[str]
    languages: list[str | None]
    revisions: bytes
    deleted: bytes
    created_at_us: bytes
    vectors_KD: bytes
    partitions: bytes
    offsets: bytes
    at_us: bytes


_encoder = msgspec.msgpack.Encoder()
_header = msgspec.msgpack.Decoder(Header)
_chunk = msgspec.msgpack.Decoder(_Stored)


def write(folder: Path, header: Header, chunks: Iterable[Chunk]) -> None:
    """Replaces the folder's snapshot when the new one is whole and on the disk. Raises OSError."""
    temporary = folder / f"{_NAME}.tmp"
    try:
        with temporary.open("wb") as file:
            file.write(_MAGIC + b"%d\n" % IN_FOLDER[HOT_SNAPSHOT].written)
            _write_part(file, _encoder.encode(header))
            for chunk in chunks:
                _write_part(file, _encoder.encode(_to_store(chunk)))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / _NAME)
    finally:
        temporary.unlink(missing_ok=True)


class Reading:
    """An open snapshot. The header is read at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        _check_form(file)
        try:
            self.header = _header.decode(self._read_part())
        except msgspec.DecodeError as error:
            raise SnapshotRefused(f"the snapshot's header is damaged: {error}") from error

    def chunks(self) -> Iterator[Chunk]:
        """Raises SnapshotRefused where the file is damaged or ends too early."""
        num_posts = 0
        while num_posts < self.header.num_posts:
            try:
                chunk = _from_store(_chunk.decode(self._read_part()), self.header.dimension)
            except (msgspec.DecodeError, ValueError) as error:
                raise SnapshotRefused(f"the snapshot is damaged: {error}") from error
            num_posts += len(chunk.batch.ids)
            yield chunk
        if self._file.read(1):
            raise SnapshotRefused("the snapshot is damaged: there is more in it than its header says")

    def _read_part(self) -> bytes:
        frame = self._file.read(_FRAME.size)
        if len(frame) < _FRAME.size:
            raise SnapshotRefused("the snapshot ends too early")
        length, checksum = _FRAME.unpack(frame)
        if length > self._size:
            raise SnapshotRefused("the snapshot is damaged: a part of it is longer than the file")
        part = self._file.read(length)
        if len(part) < length:
            raise SnapshotRefused("the snapshot ends too early")
        if zlib.crc32(part) != checksum:
            raise SnapshotRefused("the snapshot is damaged: a checksum is wrong")
        return part


def _check_form(file: IO[bytes]) -> None:
    is_ours = file.read(len(_MAGIC)) == _MAGIC
    form = file.readline(_MAX_DIGITS + 1)
    if not is_ours or not form.endswith(b"\n") or not form[:-1].isdigit():
        raise SnapshotRefused("the snapshot does not begin like one")
    if int(form) > IN_FOLDER[HOT_SNAPSHOT].newest:
        newest = IN_FOLDER[HOT_SNAPSHOT].newest
        raise SnapshotOfNewerForm(
            f"the snapshot is of form {int(form)}, and this version reads them up to form {newest}; it is left alone"
        )


def open_snapshot(folder: Path) -> IO[bytes] | None:
    """None if there is none."""
    try:
        return (folder / _NAME).open("rb")
    except FileNotFoundError:
        return None


def _write_part(file: IO[bytes], part: bytes) -> None:
    file.write(_FRAME.pack(len(part), zlib.crc32(part)))
    file.write(part)


def _to_store(chunk: Chunk) -> _Stored:
    batch, places = chunk
    return _Stored(
        list(batch.ids),
        list(batch.authors),
        list(batch.languages),
        batch.revisions.astype("<i8").tobytes(),
        batch.deleted.tobytes(),
        batch.created_at_us.astype("<i8").tobytes(),
        batch.vectors_KD.astype("<f4", copy=False).tobytes(),
        places.partition.astype("<i2").tobytes(),
        places.offset.astype("<i8").tobytes(),
        places.at_us.astype("<i8").tobytes(),
    )


def _from_store(stored: _Stored, dimension: int) -> Chunk:
    batch = Batch(
        stored.ids,
        stored.authors,
        stored.languages,
        _numbers(stored.revisions),
        np.frombuffer(stored.deleted, np.bool_),
        _numbers(stored.created_at_us),
        np.frombuffer(stored.vectors_KD, "<f4").reshape(-1, dimension),
    )
    places = Places(np.frombuffer(stored.partitions, "<i2"), _numbers(stored.offsets), _numbers(stored.at_us))
    lengths = {len(stored.ids), len(stored.authors), len(stored.languages), *map(len, batch[3:]), len(places.partition)}
    if lengths | {len(places.offset), len(places.at_us)} != {len(stored.ids)}:
        raise ValueError("its columns are not of the same length")
    return Chunk(batch, places)


def _numbers(stored: bytes) -> npt.NDArray[np.int64]:
    return np.frombuffer(stored, "<i8")
