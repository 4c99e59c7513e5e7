"""Which members belong to the canary."""

import pytest

from retriever.generations.roles import Roles, is_in_share
from schemas.generations import Canary
from schemas.ids import Generation, MemberId
from tests.kit.data.generations import AT

B = Generation("b-2")
MEMBERS = [MemberId(f"m{number:05}") for number in range(20_000)]


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5])
def test_the_share_is_that_of_the_members(share: float) -> None:
    """Within four standard deviations."""
    number = sum(is_in_share(member, B, share) for member in MEMBERS)
    expected = share * len(MEMBERS)
    assert abs(number - expected) < 4 * (expected * (1 - share)) ** 0.5


def test_a_member_stays_in_a_share_that_grows() -> None:
    small = {member for member in MEMBERS if is_in_share(member, B, 0.05)}
    large = {member for member in MEMBERS if is_in_share(member, B, 0.2)}
    assert small < large


def test_the_split_is_the_same_for_ever_and_in_every_process() -> None:
    """These were in the share when this test was written. Another hash would move members of a running canary."""
    assert [member for member in MEMBERS[:100] if is_in_share(member, B, 0.05)] == ["m00045", "m00051", "m00088"]


def test_another_generation_gets_other_members() -> None:
    """Two shares of a half have half of their members in common, within four standard deviations of 50."""
    first, second = (
        {member for member in MEMBERS[:10_000] if is_in_share(member, Generation(name), 0.5)} for name in ("b-2", "c-3")
    )
    assert abs(len(first & second) - 2_500) < 4 * (10_000 * 0.25 * 0.75) ** 0.5


def test_an_id_with_strange_characters_has_a_share_too() -> None:
    assert is_in_share(MemberId("ü\0\ud800"), B, 1.0)


def test_open_are_all_that_may_be_asked() -> None:
    assert Roles(Generation("a-1")).open == {"a-1"}
    roles = Roles(Generation("a-1"), Canary(B, 0.05, AT), {B: "ready", Generation("c-3"): "kept"})
    assert roles.open == {"a-1", "b-2", "c-3"}
    named = [roles.state_of(Generation(name)) for name in ("a-1", "b-2", "c-3", "d-4")]
    assert named == ["serving", "ready", "kept", "retired"]
