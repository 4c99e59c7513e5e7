"""A table on real rows: what a batch leaves, and what must never pass for a committed one."""

from pathlib import Path

import pytest

from schemas import topics
from schemas.ids import Offset, Partition
from streams.contexts.counted_offsets import LETTER, refuse_lost_offsets
from streams.contexts.kept_rows import KeptRows
from streams.contexts.processor import member_form
from streams.contexts.rows import TablePartition
from streams.contexts.tables import Table
from streams.errors import ChangelogDamaged, RowsThrownAway, RowsUnavailable
from streams.kafka.records import Place
from tests.kit.data.rows import RULES, acts, member_step

PLACE = Place("changelog", Partition(2))


def stored(folder: Path) -> TablePartition:
    return TablePartition(folder, PLACE, b"id")


def test_cells_without_the_offset_of_their_changelog_are_no_committed_batch(tmp_path: Path) -> None:
    table = Table(stored(tmp_path), member_form(RULES).rows, KeptRows())
    table["m"] = member_step(table["m"], acts("like")).row
    assert table.cells({})
    with pytest.raises(RowsUnavailable, match="cells of changelog-2 were committed and their offset was not said"):
        table.committed(None)
    table.close()
    table = Table(stored(tmp_path), member_form(RULES).rows, KeptRows())
    assert table["m"].history.entries() == []
    assert table.cells({}) == {}
    table.committed(None)
    table.close()


@pytest.mark.parametrize("key", [b"sm", b"dm"])
def test_a_row_that_cannot_be_read_takes_its_partition_along(tmp_path: Path, key: bytes) -> None:
    damaged = stored(tmp_path)
    damaged.write({key: b"junk"}, Offset(1))
    with pytest.raises(RowsThrownAway, match="'m' cannot be read"):
        Table(damaged, member_form(RULES).rows, KeptRows())["m"]
    restored = stored(tmp_path)
    assert restored.position == 0
    restored.close()


@pytest.mark.parametrize(("key", "what"), [(b"sm", "a piece of the row of 'm'"), (b"dm", "the due time of 'm'")])
def test_a_piece_that_a_restored_partition_has_again_is_the_changelogs(tmp_path: Path, key: bytes, what: str) -> None:
    """Else each start would restore it all, meet it and throw it all away."""
    for error, said in [(RowsThrownAway, f"{what} cannot be read"), *[(ChangelogDamaged, f"changelog-2.*{what}")] * 2]:
        restored = stored(tmp_path)
        restored.write({key: b"junk"}, Offset(7))
        with pytest.raises(error, match=said):
            Table(restored, member_form(RULES).rows, KeptRows())["m"]
        restored.close()
    kept = stored(tmp_path)
    assert kept.position == 7
    kept.close()


@pytest.mark.parametrize("key", [b"sm", b"dm"])
def test_a_piece_that_was_read_since_may_be_damaged_anew(tmp_path: Path, key: bytes) -> None:
    for _ in range(2):
        damaged = stored(tmp_path)
        damaged.write({key: b"junk", b"sn": b"junk"}, Offset(1))
        with pytest.raises(RowsThrownAway):
            Table(damaged, member_form(RULES).rows, KeptRows())["m"]
        table = Table(stored(tmp_path), member_form(RULES).rows, KeptRows())
        assert table["m"].history.entries() == []
        table.close()


def test_a_changelog_that_was_made_anew_has_none_of_the_old_ones_damage(tmp_path: Path) -> None:
    for log_id in (b"id", b"another"):
        damaged = TablePartition(tmp_path, PLACE, log_id)
        damaged.write({b"sm": b"junk"}, Offset(1))
        with pytest.raises(RowsThrownAway):
            Table(damaged, member_form(RULES).rows, KeptRows())["m"]
        restored = TablePartition(tmp_path, PLACE, log_id)
        restored.write({b"a": b"1"}, Offset(1))
        restored.close()


def test_a_damaged_position_is_restored_and_in_the_changelog_itself_said(tmp_path: Path) -> None:
    for error in (RowsThrownAway, ChangelogDamaged):
        damaged = stored(tmp_path)
        damaged.write({LETTER + topics.MEMBERS.encode(): b"short"}, Offset(1))
        with pytest.raises(error, match="the position in members cannot be read"):
            refuse_lost_offsets(damaged, {})
        damaged.close()


def test_all_tables_of_a_process_share_one_budget_of_rows(tmp_path: Path) -> None:
    kept = KeptRows(budget_rows=3)
    places = [Place("changelog", Partition(number)) for number in range(2)]
    first, second = (Table(TablePartition(tmp_path, place, b"id"), member_form(RULES).rows, kept) for place in places)
    for table, entity_id in ((first, "a"), (first, "b"), (second, "a"), (first, "a"), (second, "c")):
        table[entity_id] = member_step(table[entity_id], acts("like", at_s=len(entity_id))).row
        table.committed(Offset(1) if table.cells({}) else None)

    def in_memory() -> list[tuple[int, str]]:
        return [(n, name) for n, place in enumerate(places) for name in "abc" if kept.get(place, name) is not None]

    assert in_memory() == [(0, "a"), (1, "a"), (1, "c")]
    assert len(first["b"].history.entries()) == 1, "it is loaded again"
    second.close()
    assert in_memory() == [(0, "a")], "whoever has the partition now changes its rows"
    first.close()
