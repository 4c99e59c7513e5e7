"""A member who was seen lately is cached for a while, and not for longer."""

import pytest

from retriever.answer import members
from retriever.answer.members import MemberLookup, Members
from schemas.ids import MemberId
from tests.kit.retrievers import RetrieverSetup, asking_member


@pytest.fixture
def retriever() -> RetrieverSetup:
    return RetrieverSetup(warm=False)


def test_a_member_who_was_not_seen_for_long_is_forgotten(retriever: RetrieverSetup) -> None:
    now = [0.0]
    cached = Members(retriever.cold, clock=lambda: now[0])
    retriever.in_cold(asking_member("m"))
    cached.find(MemberId("m"))
    retriever.cold.fails = True
    now[0] = members.CACHED_S - 1
    assert cached.find(MemberId("m")).member is not None
    now[0] = members.CACHED_S
    assert cached.find(MemberId("m")) == MemberLookup(None, "the tier is down for this test")


def test_the_number_of_cached_members_is_bounded(retriever: RetrieverSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "CACHED_MEMBERS", 2)
    cached = Members(retriever.cold)
    names = [MemberId(name) for name in ("a", "b", "c")]
    for name in names:
        retriever.in_cold(asking_member(name))
        cached.find(name)
    retriever.cold.fails = True
    assert [cached.find(name).member is not None for name in names] == [False, True, True]


def test_the_memory_of_expired_members_is_freed(retriever: RetrieverSetup) -> None:
    now = [0.0]
    cached = Members(retriever.cold, clock=lambda: now[0])
    for name, seen_s in (("early", 0.0), ("late", 1.0)):
        now[0] = seen_s
        retriever.in_cold(asking_member(name))
        cached.find(MemberId(name))
    now[0] = members.CACHED_S
    cached.forget_expired()
    assert list(cached._cache) == ["late"]
    assert cached._cache.expire() == [], "nothing that has expired is left"


def test_the_retriever_frees_it_when_it_is_told(retriever: RetrieverSetup) -> None:
    now = [0.0]
    retriever.under_test._members = cached = Members(retriever.cold, clock=lambda: now[0])
    retriever.in_cold(asking_member("m"))
    retriever.ask(member_id="m")
    assert list(cached._cache) == ["m"]
    now[0] = members.CACHED_S
    retriever.under_test.forget_expired_members()
    assert cached._cache.expire() == []
    retriever.close()
