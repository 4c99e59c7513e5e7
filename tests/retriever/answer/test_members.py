"""Who was seen lately is remembered for a while, and not for longer."""

import pytest

from retriever.answer import members
from retriever.answer.members import FoundMember, Members
from schemas.ids import MemberId
from tests.kit.retrievers import World, member


@pytest.fixture
def world() -> World:
    return World(warm=False)


def test_one_who_was_not_seen_for_long_is_forgotten(world: World) -> None:
    now = [0.0]
    found = Members(world.cold, clock=lambda: now[0])
    world.in_cold(member("m"))
    found.find(MemberId("m"))
    world.cold.fails = True
    now[0] = members.KEPT_S - 1
    assert found.find(MemberId("m")).member is not None
    now[0] = members.KEPT_S
    assert found.find(MemberId("m")) == FoundMember(None, "the tier is down for this test")


def test_only_so_many_are_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "KEPT_MEMBERS", 2)
    found = Members(world.cold)
    names = [MemberId(name) for name in ("a", "b", "c")]
    for name in names:
        world.in_cold(member(name))
        found.find(name)
    world.cold.fails = True
    assert [found.find(name).member is not None for name in names] == [False, True, True]


def test_one_that_no_answer_would_be_given_from_is_not_kept(world: World) -> None:
    now = [0.0]
    found = Members(world.cold, clock=lambda: now[0])
    for name, seen_s in (("early", 0.0), ("late", 1.0)):
        now[0] = seen_s
        world.in_cold(member(name))
        found.find(MemberId(name))
    now[0] = members.KEPT_S
    found.forget_old()
    assert list(found._kept) == ["late"]


def test_the_retriever_forgets_them_when_it_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.in_cold(member("m"))
    world.ask(member_id="m")
    assert world.retriever._members._kept
    monkeypatch.setattr(members, "KEPT_S", 0.0)
    world.retriever.forget_old()
    assert not world.retriever._members._kept
    world.close()
