"""What the point table makes of stored points where one entity has two: of every pair the newer record counts."""

from itertools import permutations

import pytest

from indexer.cold.edge.point_table import Head, PointTable
from schemas.ids import Micros

OLD, GONE, NEW = Head("p", 1, False, 5, 0, 0), Head("p", 3, True, 6, 0, 1), Head("p", 3, False, 7, 0, 2)
"""NEW is of the same revision as GONE, from a later record."""
OTHER = Head("other", 9, False, 8, 0, 3)


@pytest.mark.parametrize("at_once", [True, False], ids=["one page", "a page each"])
@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_an_entity_has_one_number_and_its_newest_record(order: tuple[int, ...], at_once: bool) -> None:
    stored = [(number, (OLD, GONE, NEW, OTHER)[which]) for number, which in enumerate(order)]
    table = PointTable()
    outdated: list[int] = []
    for page in [stored] if at_once else [[record] for record in stored]:
        outdated += table.load([number for number, _ in page], [head for _, head in page])
    table.find_free_numbers()
    number = order.index(2)
    assert table.number("p") == number
    assert table.last_write("p") == (3, 0, 1), "one offset less, so that the same record can complete the point"
    assert sorted(outdated) == sorted((order.index(0), order.index(1)))
    assert table.live_numbers() == sorted((number, order.index(3)))
    assert table.num_live == 2
    assert table.tombstones(Micros(100)) == []
    assert {table.assign_number("a"), table.assign_number("b"), table.assign_number("c")} == {*outdated, 4}
