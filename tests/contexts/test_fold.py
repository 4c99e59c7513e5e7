"""A few posts and members, folded through every hop: the end is the same whatever the order of arrival and the repeats.

What may depend on the order, by design, is left out: a post that is brought back after its delete, and the text of a
history's entry where a post has several texts.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from contexts.id_log import IDS_IN_CHUNK
from contexts.members import apply_member_action, apply_member_event, publish_member
from contexts.posts import apply_activity, apply_post_event, publish_post
from contexts.rows import GivenUpAction, Hop, MemberRow, PostRow
from contexts.settings import ContextRules
from schemas.contexts import HistoryEntry
from schemas.events import (
    Activity,
    Event,
    MemberDeleted,
    MemberUpdated,
    PostCreated,
    PostDeleted,
    PostEvent,
    event_order,
)
from schemas.hops import MemberAction, PostActivity
from schemas.ids import MemberId, PostId
from schemas.times import to_micros
from tests.kit.data.rows import RULES, moment, us

NOW_US = us(10_000)
HISTORY_ACTIONS = ("like", "share", "comment")


class Fold:
    """The context stage without Kafka: hops arrive at once."""

    def __init__(self, rules: ContextRules = RULES) -> None:
        self.posts: dict[str, PostRow] = {}
        self.members: dict[str, MemberRow] = {}
        self.given_up: list[GivenUpAction] = []
        self._rules = rules

    def add(self, event: Event) -> None:
        if isinstance(event, Activity):
            payload = PostActivity(MemberId(event.member_id), event.action, to_micros(event.at))
            self._hop(Hop(event.post_id, payload))
            return
        order = event_order(event, msgspec.json.encode(event))
        if isinstance(event, PostEvent):
            row = self.posts.get(event.post_id, PostRow(PostId(event.post_id)))
            self._apply(self.posts, event.post_id, apply_post_event(row, event, order, NOW_US, self._rules))
        else:
            row = self.members.get(event.member_id, MemberRow(MemberId(event.member_id)))
            self._apply(self.members, event.member_id, apply_member_event(row, event, order))

    def _hop(self, hop: Hop) -> None:
        if isinstance(hop.payload, MemberAction):
            member = self.members.get(hop.entity_id, MemberRow(MemberId(hop.entity_id)))
            self._apply(self.members, hop.entity_id, apply_member_action(member, hop.payload, NOW_US, self._rules))
        else:
            post = self.posts.get(hop.entity_id, PostRow(PostId(hop.entity_id)))
            self._apply(self.posts, hop.entity_id, apply_activity(post, hop.payload, NOW_US, self._rules))

    def _apply(self, rows: dict[str, Any], entity_id: str, change: Any) -> None:
        rows[entity_id] = change.row
        self.given_up += getattr(change, "given_up", ())
        for hop in change.hops:
            self._hop(hop)

    def end(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Contexts as they would be published: what is encoded of them."""
        posts = {post_id: publish_post(row, NOW_US)[1] for post_id, row in self.posts.items()}
        members = {member_id: publish_member(row, NOW_US, RULES)[1] for member_id, row in self.members.items()}
        encoded = {
            member_id: (member.deleted, member.headline, member.history) for member_id, member in members.items()
        }
        return (
            {post_id: (post.deleted, post.text, post.counts, post.as_of_us) for post_id, post in posts.items()},
            {member_id: content for member_id, content in encoded.items() if any(content)},
        )


def posts_events(post_id: str, deleted: bool, text: str) -> list[Event]:
    created = PostCreated(post_id=post_id, author_id="author", text=text, created_at=moment(5))
    return [created, PostDeleted(post_id=post_id, at=moment(900))] if deleted else [created]


POSTS = st.tuples(*(st.builds(posts_events, st.just(f"p{n}"), st.booleans(), st.sampled_from("ab")) for n in range(3)))
PROFILES: st.SearchStrategy[list[Event]] = st.lists(
    st.one_of(
        st.builds(
            MemberUpdated, member_id=st.just("reader"), at=st.integers(0, 9).map(moment), headline=st.sampled_from("xy")
        ),
        st.builds(MemberDeleted, member_id=st.just("reader"), at=st.integers(0, 9).map(moment)),
    ),
    max_size=4,
)
ACTIVITY = st.lists(
    st.builds(
        Activity,
        member_id=st.sampled_from(["m0", "m1"]),
        post_id=st.sampled_from(["p0", "p1", "p2"]),
        action=st.sampled_from([*HISTORY_ACTIONS, "view", "hide", "impression"]),
        at=st.integers(6, 800).map(moment),
    ),
    max_size=8,
)


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[list[Event], list[Event]]:
    """The events in the order of their times, and as they arrive: any order; what has an identity, also repeated."""
    written = [event for events in draw(POSTS) for event in events]
    profiles, activity = draw(PROFILES), draw(ACTIVITY)
    identified: list[Event] = [*written, *profiles]
    repeated = draw(st.lists(st.sampled_from(identified), max_size=4))
    in_order = sorted([*identified, *activity], key=lambda event: event.event_time)
    return in_order, draw(st.permutations([*in_order, *repeated]))


@settings(max_examples=150)
@given(arrivals())
def test_the_end_depends_on_the_events_and_not_on_their_arrival(case: tuple[list[Event], list[Event]]) -> None:
    ordered, arrived = Fold(), Fold()
    for event in case[0]:
        ordered.add(event)
    for event in case[1]:
        arrived.add(event)
    assert arrived.end() == ordered.end()


@settings(max_examples=50)
@given(arrivals())
def test_the_end_is_what_a_few_lines_say(case: tuple[list[Event], list[Event]]) -> None:
    fold = Fold()
    for event in case[1]:
        fold.add(event)
    posts, members = fold.end()
    activity = [event for event in case[0] if isinstance(event, Activity)]
    live = {event.post_id: event.text for event in case[0] if isinstance(event, PostCreated)}
    for event in case[0]:
        if isinstance(event, PostDeleted):
            live.pop(event.post_id, None)
    for post_id, (deleted, text, counts, _) in posts.items():
        assert (deleted, text) == (post_id not in live, live.get(post_id, ""))
        counted = Counter(event.action for event in activity if event.post_id == post_id)
        assert counts == ({} if deleted else counted)
    for member_id in ("m0", "m1"):
        history = {
            HistoryEntry(PostId(event.post_id), event.action, to_micros(event.at), live[event.post_id])
            for event in activity
            if event.member_id == member_id and event.post_id in live and event.action in HISTORY_ACTIONS
        }
        assert set(members[member_id][2] if member_id in members else []) == history


def waiting_by(fold: Fold, member_id: str) -> set[str]:
    """Posts that do not exist yet, and in whose rows an action of this member waits."""
    return {
        post_id
        for post_id, row in fold.posts.items()
        if any(waiting.activity.member_id == member_id for waiting in row.waiting_actions)
    }


def likes(member_id: str, post_ids: Iterable[str]) -> list[Event]:
    return [Activity(member_id=member_id, post_id=post_id, action="like", at=moment(6)) for post_id in post_ids]


def test_a_deleted_member_leaves_no_waiting_action_however_many_there_were() -> None:
    fold = Fold()
    for event in (*likes("m0", (f"p{n}" for n in range(2_500))), *likes("m1", ["p0", "p2400"])):
        fold.add(event)
    fold.add(MemberDeleted(member_id="m0", at=moment(9)))
    assert (waiting_by(fold, "m0"), waiting_by(fold, "m1")) == (set(), {"p0", "p2400"})


def test_a_deletion_finds_what_an_earlier_one_has_left() -> None:
    """An action that is newer than the first deletion may be of the time after a return."""
    fold = Fold()
    fold.add(MemberUpdated(member_id="m0", headline="x", at=moment(1)))
    for event in likes("m0", ["p0", "p1"]):
        fold.add(event)
    fold.add(Activity(member_id="m0", post_id="p1", action="share", at=moment(20)))
    fold.add(MemberDeleted(member_id="m0", at=moment(9)))
    fold.add(MemberUpdated(member_id="m0", headline="back", at=moment(10)))
    fold.add(MemberDeleted(member_id="m0", at=moment(30)))
    assert waiting_by(fold, "m0") == set()


def test_nothing_waits_that_its_member_has_forgotten() -> None:
    """What is too much for the member's row is given up with a dead letter, and never only lost from sight."""
    fold = Fold(ContextRules(waiting_posts=100))
    posts = [f"p{n}" for n in range(400)]
    for event in likes("m0", posts):
        fold.add(event)
    waiting = waiting_by(fold, "m0")
    assert waiting >= set(posts[-100:])
    assert len(waiting) <= 100 + IDS_IN_CHUNK
    assert waiting == set(fold.members["m0"].waiting_posts.newest())
    assert sorted(letter.post_id for letter in fold.given_up) == sorted(set(posts) - waiting)
    assert {letter.activity.member_id for letter in fold.given_up} == {"m0"}
    assert "100 other posts" in fold.given_up[0].cause


def test_a_post_that_is_there_is_not_asked_to_give_up_what_it_has_counted() -> None:
    fold = Fold(ContextRules(waiting_posts=1))
    fold.add(PostCreated(post_id="p0", author_id="author", text="text", created_at=moment(5)))
    for event in likes("m0", ["early", "p0", *(f"p{n}" for n in range(1, 200))]):
        fold.add(event)
    fold.add(PostCreated(post_id="p199", author_id="author", text="text", created_at=moment(5)))
    assert [fold.posts[post_id].state.counts for post_id in ("early", "p0", "p199")] == [{}, {"like": 1}, {"like": 1}]
    assert "early" in {letter.post_id for letter in fold.given_up}
