"""What a pipeline that makes no mistake would hold: the pure functions of `contexts/` and an encoder, one event after
the other, without Kafka."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from contexts.members import apply_member_action, apply_member_event, publish_member
from contexts.posts import apply_activity, apply_post_event, publish_post
from contexts.rows import Hop, MemberChange, MemberRow, PostChange, PostRow
from contexts.settings import ContextRules
from encoders.errors import Unencodable
from indexer.tiers import StoredMember, StoredPost
from nearline.chaos.expected_vectors import ExpectedVectors
from nearline.chaos.feed import Event
from nearline.chaos.pipeline_state import QUESTIONS, PipelineState
from schemas.contexts import MemberContext, PostContext
from schemas.embeddings import Vector
from schemas.events import Activity, MemberDeleted, MemberUpdated, event_order, event_time_us, parse_event
from schemas.hops import MemberAction, PostActivity
from schemas.ids import MemberId, Micros, Offset, Partition, PostId
from schemas.times import to_micros
from tests.kit.data.events import line

RULES = ContextRules()
NOW = to_micros(datetime(2026, 1, 6, tzinfo=UTC))


class FaultlessPipeline:
    """Rows of all entities. `take` the events, then ask for the `contexts`."""

    def __init__(self) -> None:
        self._posts: dict[str, PostRow] = {}
        self._members: dict[str, MemberRow] = {}
        self._published: dict[str, None] = {}

    def take(self, events: Sequence[Event]) -> None:
        for event in events:
            self._apply(line(event))

    def contexts(self) -> tuple[list[PostContext], list[MemberContext]]:
        """The newest contexts of all entities that were published, as after a flush."""
        posts = [publish_post(row, NOW)[1] for key, row in self._posts.items() if key in self._published]
        members = [publish_member(row, NOW, RULES)[1] for key, row in self._members.items() if key in self._published]
        return posts, members

    def _apply(self, body: bytes) -> None:
        event = parse_event(body)
        if isinstance(event, Activity):
            place = Partition(0), Offset(0)
            activity = PostActivity(MemberId(event.member_id), event.action, event_time_us(event), None, *place)
            self._hop(Hop(event.post_id, activity))
        elif isinstance(event, MemberUpdated | MemberDeleted):
            row = self._member(event.member_id)
            self._keep_member(apply_member_event(row, event, event_order(event, body)))
        else:
            row_of_post = self._post(event.post_id)
            self._keep_post(apply_post_event(row_of_post, event, event_order(event, body), NOW, RULES))

    def _hop(self, hop: Hop) -> None:
        if isinstance(hop.payload, MemberAction):
            self._keep_member(apply_member_action(self._member(hop.entity_id), hop.payload, NOW, RULES))
        else:
            self._keep_post(apply_activity(self._post(hop.entity_id), hop.payload, NOW, RULES))

    def _keep_post(self, change: PostChange) -> None:
        self._posts[change.row.post_id] = change.row
        self._follow(change.row.post_id, change)

    def _keep_member(self, change: MemberChange) -> None:
        self._members[change.row.member_id] = change.row
        self._follow(change.row.member_id, change)

    def _follow(self, entity_id: str, change: PostChange | MemberChange) -> None:
        if change.publish or change.row.state.publish_due_us is not None:
            self._published[entity_id] = None
        for hop in change.hops:
            self._hop(hop)

    def _post(self, post_id: str) -> PostRow:
        return self._posts.get(post_id, PostRow(PostId(post_id)))

    def _member(self, member_id: str) -> MemberRow:
        return self._members.get(member_id, MemberRow(MemberId(member_id)))


def held_after(events: Sequence[Event], vectors: ExpectedVectors) -> PipelineState:
    pipeline = FaultlessPipeline()
    pipeline.take(events)
    posts, members = pipeline.contexts()
    of_posts = {context.post_id: _vector(outcome) for context, outcome in zip(posts, vectors.posts(posts), strict=True)}
    cold = {str(context.post_id): _stored_post(context, of_posts) for context in posts if not context.deleted}
    outcomes = map(_vector, vectors.members(members))
    stored = {
        str(context.member_id): _stored_member(context, vector)
        for context, vector in zip(members, outcomes, strict=True)
    }
    return PipelineState(
        post_contexts={str(context.post_id): context for context in posts},
        member_contexts={str(context.member_id): context for context in members},
        embedded={
            "post": Counter((str(context.post_id), int(context.revision)) for context in posts),
            "member": Counter((str(context.member_id), int(context.revision)) for context in members),
        },
        cold_posts=cold,
        hot_posts={post_id: post.revision for post_id, post in cold.items()},
        answers=[_scores(vectors.question(question), cold) for question in QUESTIONS],
        members=stored,
        num_members=sum(not member.deleted for member in stored.values()),
        dead_letters=0,
    )


def _vector(outcome: Any) -> Vector | None:
    assert not isinstance(outcome, Unencodable)
    vector: Vector | None = outcome
    return vector


def _stored_post(context: PostContext, vectors: dict[PostId, Vector | None]) -> StoredPost:
    return StoredPost(
        context.post_id,
        context.revision,
        context.deleted,
        context.author_id,
        context.language,
        Micros(context.created_at_us),
        vectors[context.post_id],
    )


def _stored_member(context: MemberContext, vector: Vector | None) -> StoredMember:
    return StoredMember(
        context.member_id, context.revision, context.deleted, context.acted, context.hidden, vector, context.seen
    )


def _scores(question: Vector, posts: dict[str, StoredPost]) -> dict[str, float]:
    return {post_id: float(question @ post.vector) for post_id, post in posts.items() if post.vector is not None}
