"""What counts as a difference between two rows of the same entity."""

from msgspec.structs import replace

from contexts.history import History
from contexts.id_log import IdLog
from contexts.rows import MemberRow, MemberState, PostBody, PostRow, PostState, Profile
from nearline.rebuild.check import member_difference, post_difference
from schemas.contexts import HistoryEntry
from schemas.events import EventOrder
from schemas.ids import MemberId, Micros, PostId, Revision

ORDER = EventOrder(5, 0, "digest")
POST = PostRow(PostId("p1"), PostState(ORDER, counts={"like": 2}), PostBody(MemberId("m"), "hello", "en", Micros(5)))
MEMBER = MemberRow(MemberId("m"), MemberState(ORDER), Profile("baker", [], None, "en"))


MOST = 50


def history(*numbers: int, keep: int = MOST, text: str = "as it was") -> History:
    made = History()
    for number in numbers:
        made = made.add(HistoryEntry(PostId(f"p{number}"), "like", Micros(number), text), keep)
    return made


def test_what_depends_on_the_moment_is_no_difference_of_posts() -> None:
    other = replace(POST.state, revision=Revision(9), published_us=Micros(7), publish_due_us=Micros(8), counts={})
    same = replace(POST, state=replace(other, counts={"like": 2, "view": 0}), recipients=IdLog().append("m", 5))
    assert post_difference(POST, same) is None


def test_posts_differ_by_their_newest_event_their_body_and_their_counts() -> None:
    later = replace(POST.state, order=ORDER._replace(at_us=6))
    assert post_difference(POST, replace(POST, state=later)) == "another newest event"
    assert post_difference(POST, PostRow(PostId("p1"))) == "another newest event"
    assert post_difference(POST, replace(POST, body=None)) == "another body"
    assert post_difference(POST, replace(POST, state=replace(POST.state, counts={"like": 3}))) == "other counts"


def test_what_depends_on_the_moment_is_no_difference_of_members() -> None:
    old = replace(MEMBER, history=history(1, 2, 3), hidden=IdLog().append("p8", 9).append("p9", 9))
    new = replace(MEMBER, history=history(3, 1, 2, text="mended"), hidden=IdLog().append("p9", 9).append("p8", 9))
    assert member_difference(old, new, MOST) is None


def test_members_differ_by_newest_event_profile_history_and_hidden_posts() -> None:
    deleted = replace(MEMBER, state=replace(MEMBER.state, deleted=True))
    assert member_difference(MEMBER, deleted, MOST) == "another newest event"
    assert member_difference(MEMBER, replace(MEMBER, profile=None), MOST) == "another profile"
    assert member_difference(MEMBER, replace(MEMBER, history=history(1)), MOST) == "another history"
    lacks_its_oldest = replace(MEMBER, history=history(2, 3))
    assert member_difference(replace(MEMBER, history=history(1, 2, 3)), lacks_its_oldest, MOST) == "another history"
    hidden = replace(MEMBER, hidden=IdLog().append("p1", 9))
    assert member_difference(MEMBER, hidden, MOST) == "other hidden posts"


def test_of_a_shortened_history_only_what_both_can_hold_is_compared() -> None:
    """When a post in a full history is deleted, the older entries that were dropped for it do not come back."""
    shortened = replace(MEMBER, history=history(*range(1, 8), keep=4).without("p7"))
    whole = replace(MEMBER, history=history(*range(1, 7), keep=4))
    assert [entry.post_id for entry in shortened.history.entries()] == ["p4", "p5", "p6"]
    assert member_difference(shortened, whole, 4) is None
    assert member_difference(whole, shortened, 4) is None
    short_of_one = replace(MEMBER, history=history(1, 2, 3, 4, 6, keep=4))
    assert member_difference(short_of_one, whole, 4) == "another history"
