"""Ids that only the canaries of the monitor may have."""

from typing import Any

import msgspec
import pytest

from schemas.canaries import CANARY_AUTHOR, asks_for_canaries, canary_id, is_reserved
from schemas.errors import BadRecord
from schemas.events import is_canary, parse_event
from tests.kit.data.events import activity, member_updated, post_created, post_deleted

CANARY = canary_id("node", 3)


def parse(event: dict[str, Any]) -> Any:
    return parse_event(msgspec.json.encode(event))


def test_a_canary_has_an_id_and_the_author_of_its_own() -> None:
    assert is_canary(parse(post_created(CANARY, author_id=CANARY_AUTHOR)))
    assert is_canary(parse(post_deleted(CANARY)))
    assert not is_canary(parse(post_created("p1")))
    assert is_reserved(CANARY)


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (post_created("p1", author_id=CANARY_AUTHOR), "author_id"),
        (post_created(CANARY, author_id="m1"), "post_id"),
        (post_created(CANARY, author_id=CANARY), "post_id"),
        (member_updated(CANARY_AUTHOR), "member_id"),
        (activity(CANARY_AUTHOR, "p1"), "member_id"),
        (activity("m1", CANARY), "post_id"),
    ],
)
def test_whoever_else_uses_one_is_told_which_field_and_what_to_do(event: dict[str, Any], field: str) -> None:
    sentence = (
        f"{field} is reserved for the canaries of the monitor; use an id that does not begin with nearline-canary"
    )
    with pytest.raises(BadRecord) as refused:
        parse(event)
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("only_authors", "asks"),
    [
        (None, False),
        ([], False),
        (["m1"], False),
        ([CANARY_AUTHOR, "m1"], False),
        ([CANARY_AUTHOR], True),
        (frozenset((CANARY_AUTHOR,)), True),
    ],
)
def test_only_a_question_for_their_author_alone_asks_for_canaries(only_authors: Any, asks: bool) -> None:
    assert asks_for_canaries(only_authors) is asks
