"""Who asks: the member store first, then the cold tier, once for all of them."""

from collections.abc import Iterator

import pytest

from retriever.answer.members import Members
from retriever.reasons import Code
from schemas.ids import MemberId
from tests.kit.retrievers import LONG_S, RetrieverSetup, asking_member


@pytest.fixture
def retriever() -> Iterator[RetrieverSetup]:
    retriever = RetrieverSetup(warm=False)
    yield retriever
    retriever.close()


def find(retriever: RetrieverSetup, *names: str) -> list[int | str | None]:
    """Of each member the revision, or why there is none."""
    members = Members(retriever.members, retriever.cold)
    found = members.find([MemberId(name) for name in names], LONG_S * 1e6)
    return [
        "unreadable" if one.unreadable else (None if one.member is None else int(one.member.revision)) for one in found
    ]


def test_the_cold_tier_is_asked_once_for_all_that_the_store_does_not_hold(
    retriever: RetrieverSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    retriever.in_member_feed(asking_member("stored", revision=2))
    retriever.in_cold(asking_member("cold", revision=3), asking_member("gone", revision=4, deleted=True))
    asked = []
    members = retriever.cold.tier.members
    monkeypatch.setattr(
        retriever.cold.tier, "members", lambda ids, **timeout: asked.append(ids) or members(ids, **timeout)
    )
    names = ("cold", "stored", "never", "gone", "cold")
    assert find(retriever, *names) == [3, 2, None, 4, 3]
    assert asked == [["cold", "never", "gone"]]
    assert find(retriever, "cold", "gone") == [3, 4]
    assert len(asked) == 1, "they are in the store now"


def test_what_the_store_holds_is_found_while_the_cold_tier_is_down(retriever: RetrieverSetup) -> None:
    retriever.in_member_feed(asking_member("stored", revision=2))
    retriever.cold.fails = True
    assert find(retriever, "stored", "other") == [2, "unreadable"]


def test_a_member_that_is_not_sure_comes_with_the_reason(retriever: RetrieverSetup) -> None:
    retriever.in_cold(asking_member("m"))
    members = Members(retriever.members, retriever.cold)
    (found,) = members.find([MemberId("m")], LONG_S * 1e6)
    assert (found.problem, found.unreadable) == (None, False)
    retriever.cold.fails = True
    (found,) = members.find([MemberId("n")], LONG_S * 1e6)
    assert found.problem is not None
    assert (found.problem.code, found.unreadable) == (Code.COLD_UNAVAILABLE, True)
