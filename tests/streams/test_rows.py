import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.ids import Offset, Partition
from streams.errors import RowsUnavailable
from streams.records import Place
from streams.rows import TablePartition, remove_abandoned
from tests.waiting import until

PLACE = Place("changelog", Partition(2))


class Between:
    """The engine, with another way of compacting."""

    def __init__(self, db: Any, compact_range: Callable[..., None]) -> None:
        self._db = db
        self.compact_range = compact_range

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


def opened(folder: Path, log_id: bytes = b"one") -> TablePartition:
    return TablePartition(folder, PLACE, log_id)


def test_cells_and_position_survive_together(tmp_path: Path) -> None:
    table = opened(tmp_path)
    assert (table.position, table.get(b"a")) == (0, None)
    table.write({b"a": b"1", b"b": b"2"}, Offset(5))
    table.write({b"a": None, b"bb": b"3"}, Offset(9))
    table.close()
    table = opened(tmp_path)
    assert (table.position, table.get(b"a"), table.get(b"b")) == (9, None, b"2")
    assert list(table.scan(b"b")) == [(b"b", b"2"), (b"bb", b"3")]
    assert list(table.scan(b"c")) == []
    table.close()


def test_rows_of_a_changelog_that_was_made_anew_are_thrown_away(tmp_path: Path) -> None:
    table = opened(tmp_path)
    table.write({b"a": b"1"}, Offset(5))
    table.close()
    table = opened(tmp_path, b"another")
    assert (table.position, table.get(b"a")) == (0, None)
    table.close()


def test_rows_that_another_has_open_are_refused_with_the_mend(tmp_path: Path) -> None:
    table = opened(tmp_path)
    with pytest.raises(RowsUnavailable, match="remove the folder"):
        opened(tmp_path)
    table.close()


def test_what_was_deleted_or_overwritten_is_shed_from_the_files(tmp_path: Path) -> None:
    table = opened(tmp_path)
    table.write({b"a": b"zirconium", b"b": b"quokka", b"c": b"kept"}, Offset(5))
    table.shed(0)
    table.write({b"a": None, b"b": b"other"}, Offset(9))
    assert _in_files(tmp_path) == {b"zirconium", b"quokka", b"kept"}
    table.shed(3600)
    assert _in_files(tmp_path) == {b"zirconium", b"quokka", b"kept"}, "it was done lately"
    table.shed(0)
    assert _in_files(tmp_path) == {b"kept"}
    assert (table.position, table.get(b"b"), table.get(b"c")) == (9, b"other", b"kept")
    table.close()
    table.shed(0)


def test_rows_close_within_a_slice_of_being_shed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = opened(tmp_path)
    for number in range(3):
        table.write({b"%d" % number: b"zirconium"}, Offset(number))
    slices: list[tuple[bytes | None, bytes | None]] = [(None, b"1"), (b"1", b"2"), (b"2", None)]
    monkeypatch.setattr(table, "_slices", lambda: slices)
    done = []
    compact_range = table._db.compact_range

    def compact(start: bytes | None, end: bytes | None, options: object) -> None:
        done.append(start)
        closing.start()
        until(lambda: table._closed, "somebody to close them")
        compact_range(start, end, options)

    monkeypatch.setattr(table, "_db", Between(table._db, compact))
    closing = threading.Thread(target=table.close)
    table.shed(0)
    closing.join(10)
    assert (done, closing.is_alive()) == ([None], False)
    opened(tmp_path).close()


def test_rows_of_partitions_that_moved_away_are_removed(tmp_path: Path) -> None:
    """But not while somebody has them open, however long he is quiet."""
    gone, held = opened(tmp_path / "0"), opened(tmp_path / "1")
    gone.write({b"a": b"zirconium"}, Offset(5))
    gone.close()
    remove_abandoned(tmp_path, 3600)
    assert _in_files(tmp_path) == {b"zirconium"}
    remove_abandoned(tmp_path, 0)
    assert _in_files(tmp_path) == set()
    held.write({b"a": b"kept"}, Offset(5))
    assert held.get(b"a") == b"kept"
    held.close()
    assert _in_files(tmp_path) == {b"kept"}


def test_a_table_holds_only_so_much_in_memory(tmp_path: Path) -> None:
    table = opened(tmp_path)
    held = []
    for number in range(100):
        table.write({b"%d" % number: bytes(100_000)}, Offset(number))
        held.append(table._db.property_int_value("rocksdb.cur-size-all-mem-tables"))
    # One that is written to, and one that is being put into a file.
    assert max(held) < 6_000_000
    table.close()


def _in_files(folder: Path) -> set[bytes]:
    content = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    return {word for word in (b"zirconium", b"quokka", b"kept") if word in content}
