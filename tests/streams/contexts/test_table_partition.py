"""A table partition on a real row store: what a batch leaves, and what must never count as committed."""

from pathlib import Path

import pytest

from contexts.rows import MemberRow
from schemas import topics
from schemas.ids import Offset, Partition
from streams.contexts.counted_offsets import LETTER, refuse_lost_offsets
from streams.contexts.row_store import RowStore
from streams.contexts.table import member_table
from streams.contexts.table_partition import RowCache, TablePartition
from streams.errors import ChangelogDamaged, RowsThrownAway, RowsUnavailable
from streams.kafka.records import Place
from tests.kit.data.rows import RULES, member_action, member_step

PLACE = Place("changelog", Partition(2))


def opened(folder: Path) -> RowStore:
    return RowStore(folder, PLACE, b"id")


def members(store: RowStore, cache: RowCache | None = None) -> TablePartition[MemberRow]:
    return TablePartition(store, member_table(RULES).codec, RowCache(10) if cache is None else cache)


def test_cells_without_the_offset_of_their_changelog_are_no_committed_batch(tmp_path: Path) -> None:
    table = members(opened(tmp_path))
    table["m"] = member_step(table["m"], member_action("like")).row
    assert table.cells({})
    with pytest.raises(
        RowsUnavailable, match="cells of changelog-2 were committed and the broker did not name their offset"
    ):
        table.on_committed(None)
    table.close()
    table = members(opened(tmp_path))
    assert table["m"].history.entries() == []
    assert table.cells({}) == {}
    table.on_committed(None)
    table.close()


@pytest.mark.parametrize("key", [b"sm", b"dm"])
def test_a_row_that_cannot_be_read_takes_its_partition_along(tmp_path: Path, key: bytes) -> None:
    damaged = opened(tmp_path)
    damaged.write({key: b"junk"}, Offset(1))
    with pytest.raises(RowsThrownAway, match="'m' cannot be read"):
        members(damaged)["m"]
    restored = opened(tmp_path)
    assert restored.position == 0
    restored.close()


@pytest.mark.parametrize(("key", "what"), [(b"sm", "a piece of the row of 'm'"), (b"dm", "the due cell of 'm'")])
def test_a_piece_that_a_restored_partition_has_again_is_the_changelogs(tmp_path: Path, key: bytes, what: str) -> None:
    """Else each start would restore it all, meet it and throw it all away."""
    for error, text in [(RowsThrownAway, f"{what} cannot be read"), *[(ChangelogDamaged, f"changelog-2.*{what}")] * 2]:
        restored = opened(tmp_path)
        restored.write({key: b"junk"}, Offset(7))
        with pytest.raises(error, match=text):
            members(restored)["m"]
        restored.close()
    as_it_was = opened(tmp_path)
    assert as_it_was.position == 7
    as_it_was.close()


@pytest.mark.parametrize("key", [b"sm", b"dm"])
def test_a_piece_that_was_read_since_may_be_damaged_anew(tmp_path: Path, key: bytes) -> None:
    for _ in range(2):
        damaged = opened(tmp_path)
        damaged.write({key: b"junk", b"sn": b"junk"}, Offset(1))
        with pytest.raises(RowsThrownAway):
            members(damaged)["m"]
        table = members(opened(tmp_path))
        assert table["m"].history.entries() == []
        table.close()


def test_a_changelog_that_was_made_anew_has_none_of_the_old_ones_damage(tmp_path: Path) -> None:
    for changelog_id in (b"id", b"another"):
        damaged = RowStore(tmp_path, PLACE, changelog_id)
        damaged.write({b"sm": b"junk"}, Offset(1))
        with pytest.raises(RowsThrownAway):
            members(damaged)["m"]
        restored = RowStore(tmp_path, PLACE, changelog_id)
        restored.write({b"a": b"1"}, Offset(1))
        restored.close()


def test_a_damaged_counted_offset_is_restored_and_one_in_the_changelog_itself_is_reported(tmp_path: Path) -> None:
    for error in (RowsThrownAway, ChangelogDamaged):
        damaged = opened(tmp_path)
        damaged.write({LETTER + topics.MEMBERS.encode(): b"short"}, Offset(1))
        with pytest.raises(error, match="the counted offset of members cannot be read"):
            refuse_lost_offsets(damaged, {}, "contexts")
        damaged.close()


def test_all_tables_of_a_process_share_one_budget_of_rows(tmp_path: Path) -> None:
    cache = RowCache(3)
    places = [Place("changelog", Partition(number)) for number in (1, 10)]
    first, second = (members(RowStore(tmp_path, place, b"id"), cache) for place in places)
    for table, entity_id in ((first, "a"), (first, "b"), (second, "a"), (first, "a"), (second, "c")):
        table[entity_id] = member_step(table[entity_id], member_action("like", at_s=len(entity_id))).row
        table.on_committed(Offset(1) if table.cells({}) else None)

    assert sorted(cache) == ["changelog-1/a", "changelog-10/a", "changelog-10/c"]
    assert len(first["b"].history.entries()) == 1, "it is loaded again"
    second.close()
    assert sorted(cache) == ["changelog-1/a"], "whoever has the partition now changes its rows"
    first.close()
