from pathlib import Path

import pytest

from schemas.ids import Offset, Partition
from streams.errors import RowsUnavailable
from streams.records import Place
from streams.rows import TablePartition

PLACE = Place("changelog", Partition(2))


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
