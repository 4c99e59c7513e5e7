import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import NewerForm
from schemas.forms import Form
from schemas.ids import Offset, Partition
from streams.contexts import row_store
from streams.contexts.row_store import RowStore, remove_abandoned
from streams.errors import RowsThrownAway, RowsUnavailable
from streams.kafka.records import Place
from tests.kit.waiting import until

PLACE = Place("changelog", Partition(2))


class OtherCompaction:
    """The engine, with another way of compacting."""

    def __init__(self, db: Any, compact_range: Callable[..., None]) -> None:
        self._db = db
        self.compact_range = compact_range

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


class FullDisk:
    """The engine on a disk that takes no more."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def write(self, _: object) -> None:
        raise Exception("no space")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


class Refusing:
    """The engine where nothing can be opened or read."""

    def __init__(self, db: Any, error_text: str) -> None:
        self._db = db
        self._error_text = error_text

    def get(self, _: object) -> None:
        raise Exception(self._error_text)

    def __call__(self, *_: object) -> None:
        raise Exception(self._error_text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


def opened(folder: Path, changelog_id: bytes = b"one") -> RowStore:
    return RowStore(folder, PLACE, changelog_id)


def test_cells_and_position_survive_together(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert (store.position, store.get(b"a")) == (0, None)
    store.write({b"a": b"1", b"b": b"2"}, Offset(5))
    store.write({b"a": None, b"bb": b"3"}, Offset(9))
    store.close()
    store = opened(tmp_path)
    assert (store.position, store.get(b"a"), store.get(b"b")) == (9, None, b"2")
    assert list(store.scan(b"b")) == [(b"b", b"2"), (b"bb", b"3")]
    assert list(store.scan(b"c")) == []
    store.close()


def test_rows_of_a_changelog_that_was_made_anew_are_thrown_away(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.write({b"a": b"1"}, Offset(5))
    store.close()
    store = opened(tmp_path, b"another")
    assert (store.position, store.get(b"a")) == (0, None)
    store.close()


def test_rows_that_another_has_open_are_refused_with_the_mend(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with pytest.raises(RowsUnavailable, match="end the process that has them open"):
        opened(tmp_path)
    store.close()


def test_what_was_deleted_or_overwritten_is_purged_from_the_files(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.write({b"a": b"zirconium", b"b": b"quokka", b"c": b"kept"}, Offset(5))
    store.compact_if_due(0)
    store.write({b"a": None, b"b": b"other"}, Offset(9))
    assert _in_files(tmp_path) == {b"zirconium", b"quokka", b"kept"}
    store.compact_if_due(3600)
    assert _in_files(tmp_path) == {b"zirconium", b"quokka", b"kept"}, "it was done lately"
    store.compact_if_due(0)
    assert _in_files(tmp_path) == {b"kept"}
    assert (store.position, store.get(b"b"), store.get(b"c")) == (9, b"other", b"kept")
    store.close()
    store.compact_if_due(0)


def test_rows_close_within_one_key_range_of_a_compaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path)
    for number in range(3):
        store.write({b"%d" % number: b"zirconium"}, Offset(number))
    key_ranges: list[tuple[bytes | None, bytes | None]] = [(None, b"1"), (b"1", b"2"), (b"2", None)]
    monkeypatch.setattr(store, "_key_ranges", lambda: key_ranges)
    done = []
    compact_range = store._db.compact_range

    def compact(start: bytes | None, end: bytes | None, options: object) -> None:
        done.append(start)
        closing.start()
        until(lambda: store._closed, "the rows to be closed")
        compact_range(start, end, options)

    monkeypatch.setattr(store, "_db", OtherCompaction(store._db, compact))
    closing = threading.Thread(target=store.close)
    store.compact_if_due(0)
    closing.join(10)
    assert (done, closing.is_alive()) == ([None], False)
    opened(tmp_path).close()


def test_rows_of_partitions_that_moved_away_are_removed(tmp_path: Path) -> None:
    """But not while a process has them open, however long it has not compacted them."""
    closed, open_elsewhere = opened(tmp_path / "0"), opened(tmp_path / "1")
    closed.write({b"a": b"zirconium"}, Offset(5))
    closed.close()
    remove_abandoned(tmp_path, 3600)
    assert _in_files(tmp_path) == {b"zirconium"}
    remove_abandoned(tmp_path, 0)
    assert _in_files(tmp_path) == set()
    open_elsewhere.write({b"a": b"kept"}, Offset(5))
    assert open_elsewhere.get(b"a") == b"kept"
    open_elsewhere.close()
    assert _in_files(tmp_path) == {b"kept"}


def test_a_table_holds_only_so_much_in_memory(tmp_path: Path) -> None:
    store = opened(tmp_path)
    bytes_held = []
    for number in range(100):
        store.write({b"%d" % number: bytes(100_000)}, Offset(number))
        bytes_held.append(store._db.property_int_value("rocksdb.cur-size-all-mem-tables"))
    # One buffer that is written to, and one that is being put into a file.
    assert max(bytes_held) < 6_000_000
    store.close()


# Damaged rows are thrown away.


def damaged(folder: Path) -> RowStore:
    """A store on a file with damaged blocks. The first blocks, with the position, are sound."""
    store = opened(folder)
    for number in range(2000):
        store.write({b"d%05d" % number: bytes(100)}, Offset(number))
    store._db.flush()
    store.close()
    (file,) = folder.rglob("*.sst")
    content = bytearray(file.read_bytes())
    for at in range(5_000, len(content) - 6_000, 997):
        content[at] ^= 0x55
    file.write_bytes(content)
    store = opened(folder)
    assert (store.position, store.get(b"d00000")) == (1999, bytes(100))
    return store


def _restored_anew(folder: Path) -> None:
    store = opened(folder)
    assert (store.position, list(store.scan(b""))) == (0, [])
    store.write({b"a": b"1"}, Offset(5))
    store.close()
    store = opened(folder)
    assert (store.position, store.get(b"a")) == (5, b"1")
    store.close()


def test_a_damaged_block_throws_the_rows_away_when_it_is_read(tmp_path: Path) -> None:
    store = damaged(tmp_path)
    keys = [b"d%05d" % number for number in range(2000)]
    with pytest.raises(RowsThrownAway, match="thrown away, and restored at the next start"):
        list(map(store.get, keys))
    store.close()
    _restored_anew(tmp_path)


def test_a_scan_does_not_end_at_a_damaged_block_as_if_nothing_came_after_it(tmp_path: Path) -> None:
    store = damaged(tmp_path)
    with pytest.raises(RowsThrownAway):
        list(store.scan(b"d"))
    _restored_anew(tmp_path)


def test_damage_that_is_met_while_files_are_merged_throws_the_rows_away_at_the_next_write(tmp_path: Path) -> None:
    store = damaged(tmp_path)
    with pytest.raises(RowsUnavailable, match="cannot be compacted"):
        store.compact_if_due(0)
    with pytest.raises(RowsThrownAway):
        store.write({b"a": b"1"}, Offset(2000))
    _restored_anew(tmp_path)


def test_rows_that_cannot_be_written_and_are_sound_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For example because the disk is full."""
    store = opened(tmp_path)
    store.write({b"a": b"1"}, Offset(5))
    with monkeypatch.context() as patch:
        patch.setattr(store, "_db", FullDisk(store._db))
        with pytest.raises(RowsUnavailable, match="cannot be written: no space"):
            store.write({b"a": b"2"}, Offset(6))
    store.close()
    store = opened(tmp_path)
    assert (store.position, store.get(b"a")) == (5, b"1")
    store.close()


def _junk(file: Path) -> None:
    file.write_bytes(b"junk")


@pytest.mark.parametrize(
    ("name", "damage"),
    [("CURRENT", _junk), ("MANIFEST-*", _junk), ("*.sst", _junk), ("MANIFEST-*", Path.unlink), ("*.sst", Path.unlink)],
)
def test_rows_whose_files_are_damaged_or_gone_are_thrown_away_and_counted(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    for times in ("1", "2"):
        store = opened(tmp_path)
        store.write({b"a": b"1"}, Offset(5))
        store._db.flush()
        store.close()
        for file in tmp_path.rglob(name):
            damage(file)
        _restored_anew(tmp_path)
        assert (tmp_path / "thrown-away").read_text() == times


def test_rows_without_the_file_that_names_the_current_ones_are_restored(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.write({b"a": b"1"}, Offset(5))
    store.close()
    (tmp_path / "changelog-2" / "CURRENT").unlink()
    _restored_anew(tmp_path)


def _stay(folder: Path) -> None:
    assert not (folder / "thrown-away").exists()
    store = opened(folder)
    assert (store.position, store.get(b"a")) == (5, b"1")
    store.close()


@contextmanager
def few_files(spare: int) -> Iterator[None]:
    """Only `spare` more files can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as next_free:
        limit = next_free.fileno() + spare
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_rows_stay_where_a_process_may_open_too_few_files(tmp_path: Path) -> None:
    """No matter which of the files cannot be opened."""
    store = opened(tmp_path)
    store.write({b"a": b"1"}, Offset(5))
    store._db.flush()
    store.close()
    refusals = []
    for spare in range(14):
        with few_files(spare):
            try:
                opened(tmp_path).close()
            except RowsUnavailable as error:
                refusals.append(str(error))
        _stay(tmp_path)
    assert len(refusals) >= 5
    assert all("allow the process more files (ulimit -n)" in refusal for refusal in refusals)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("IO error: No space left on device: While appending to file: /rows/000011.sst", "make room on that disk"),
        ("No space left on device (os error 28)", "make room on that disk"),
        ("Corruption: IO error: While open a file: /rows/000011.sst: Too many open files", "ulimit -n"),
        ("IO error: While lock file: /rows/LOCK: Resource temporarily unavailable", "end the process that has them"),
        ("IO error: While pread: /rows/000011.sst: Input/output error", "or remove the folder: the rows are restored"),
    ],
)
def test_an_error_that_says_nothing_about_the_rows_throws_none_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, remedy: str
) -> None:
    """Another process that has them open may close them the moment after."""
    store = opened(tmp_path)
    store.write({b"a": b"1"}, Offset(5))
    with monkeypatch.context() as patch:
        patch.setattr(store, "_db", Refusing(store._db, text))
        with pytest.raises(RowsUnavailable, match=remedy):
            store.get(b"a")
    store.close()
    with monkeypatch.context() as patch:
        patch.setattr(row_store, "Rdict", Refusing(row_store.Rdict, text))
        with pytest.raises(RowsUnavailable, match=remedy):
            opened(tmp_path)
    _stay(tmp_path)


def _in_files(folder: Path) -> set[bytes]:
    content = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    return {word for word in (b"zirconium", b"quokka", b"kept") if word in content}


def test_rows_of_a_newer_version_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(row_store, "IN_FOLDER", {"rows": Form(newest=2, written=2)})
        store = RowStore(tmp_path, PLACE, b"id")
        store.write({b"sp1": b"row"}, Offset(7))
        store.close()
    with pytest.raises(NewerForm, match="changelog-2 has rows of form 2, and this version reads them up to form 1"):
        RowStore(tmp_path, PLACE, b"id")

    monkeypatch.setattr(row_store, "IN_FOLDER", {"rows": Form(newest=2, written=1)})
    for _ in range(2):  # what it writes itself does not make the older cells of form 1
        store = RowStore(tmp_path, PLACE, b"id")
        assert (store.get(b"sp1"), store.position) == (b"row", 7)
        store.write({b"sp2": b"row"}, Offset(7))
        assert store.get(b"\0form") == b"2"
        store.close()
