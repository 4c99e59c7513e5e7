"""A page of dead letters, and the sums by cause. Which letters are left is tested in `test_dead_letter_box.py`."""

import pytest

from schemas.dead_letters import DeadLetterCause, DeadLetterId
from schemas.ids import Millis, Offset, Partition
from streams.operate.dead_letter_box import DeadLetter
from streams.operate.dead_letter_page import read_page


def letters(*sentences: str) -> list[DeadLetter]:
    causes = [DeadLetterCause("contexts", "posts", Partition(0), Offset(7), sentence) for sentence in sentences]
    return [
        DeadLetter(DeadLetterId(Partition(1), Offset(offset)), Millis(0), cause, b"p", b"{}", [])
        for offset, cause in enumerate(causes)
    ]


@pytest.mark.parametrize(
    ("after", "limit", "offsets", "num_more"),
    [(None, 2, [0, 1], 1), (0, 2, [1, 2], 0), (0, 1, [1], 1), (2, 2, [], 0)],
)
def test_a_page_begins_behind_a_letter_and_counts_the_rest(
    after: int | None, limit: int, offsets: list[int], num_more: int
) -> None:
    after_id = None if after is None else DeadLetterId(Partition(1), Offset(after))
    page = read_page(letters("a", "b", "c"), after_id, limit)
    assert [letter.id.offset for letter in page.letters] == offsets
    assert page.num_more == num_more
    assert page.num_by_cause.total() == 3, "the sums are of all letters"


def test_causes_that_differ_in_what_they_quote_are_one() -> None:
    page = read_page(letters("'x' is no language", "'y' is no language", "text is empty"), None, 1)
    assert {cause.sentence: number for cause, number in page.num_by_cause.items()} == {
        "… is no language": 2,
        "text is empty": 1,
    }
