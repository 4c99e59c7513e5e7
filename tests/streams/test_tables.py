"""A table on real rows: what a batch leaves, and what must never pass for a committed one."""

from pathlib import Path

import pytest

from schemas.ids import Offset, Partition
from streams.contexts_processor import member_form
from streams.errors import RowsThrownAway, RowsUnavailable
from streams.records import Place
from streams.rows import TablePartition
from streams.tables import Table
from tests.contexts.kit import RULES, acts, member_step

PLACE = Place("changelog", Partition(2))


def stored(folder: Path) -> TablePartition:
    return TablePartition(folder, PLACE, b"id")


def test_cells_without_the_offset_of_their_changelog_are_no_committed_batch(tmp_path: Path) -> None:
    table = Table(stored(tmp_path), member_form(RULES).rows)
    table["m"] = member_step(table["m"], acts("like")).row
    assert table.cells({})
    with pytest.raises(RowsUnavailable, match="cells of changelog-2 were committed and their offset was not said"):
        table.committed(None)
    table.close()
    table = Table(stored(tmp_path), member_form(RULES).rows)
    assert table["m"].history.entries() == []
    assert table.cells({}) == {}
    table.committed(None)
    table.close()


@pytest.mark.parametrize("key", [b"sm", b"dm"])
def test_a_row_that_cannot_be_read_takes_its_partition_along(tmp_path: Path, key: bytes) -> None:
    damaged = stored(tmp_path)
    damaged.write({key: b"junk"}, Offset(1))
    with pytest.raises(RowsThrownAway, match="'m' cannot be read"):
        Table(damaged, member_form(RULES).rows)["m"]
    restored = stored(tmp_path)
    assert restored.position == 0
    restored.close()
