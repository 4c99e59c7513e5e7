"""Makes queries of questions: a vector, and the filters that both tiers apply before scoring. Notes in the answer why a
vector is missing. Leaves the monitor's canaries out of every answer but the one that asks for nothing else."""

import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from indexer.tiers import Filters
from retriever.answer.cold.kept_answers import NO_MEMBER, Asked, asked_by_member, asked_by_vector, version_of
from retriever.answer.inquiry import Inquiry, Query
from retriever.answer.members import FoundMember, Members
from retriever.answer.question import Question
from retriever.answer.stored_posts import StoredPosts
from retriever.answer.warming_encoder import WarmingEncoder
from retriever.errors import RequestRefused, RetrieverUnavailable
from retriever.feed.member_rows import HeldMember
from retriever.reasons import Code, Reason
from schemas.api import ProblemCode
from schemas.canaries import CANARY_AUTHOR, asks_for_canaries
from schemas.embeddings import Vector
from schemas.ids import MemberId

_UNKNOWN: Final = "the member was never written, or is deleted"
_NO_VECTOR: Final = "the member has neither a profile nor a history"
_UNAVAILABLE: Final = "the member cannot be looked up now, and any post may be one that the member hid"
_SOME_UNKNOWN: Final = "some of the posts are unknown or deleted, so the others alone say what is similar"
_NO_MODEL: Final = "the text cannot be encoded now"
_CANARY_AUTHORS: Final = frozenset((str(CANARY_AUTHOR),))


class Queries:
    """Any thread may call `make`. It leaves each question the time for its hot search."""

    def __init__(
        self,
        members: Members,
        posts: StoredPosts,
        encoder: WarmingEncoder,
        dimension: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._members = members
        self._posts = posts
        self._encoder = encoder
        self._dimension = dimension
        self._clock = clock

    def make(self, inquiries: Sequence[Inquiry]) -> None:
        """Sets the queries of all of them. Raises RequestRefused, which names the field, and RetrieverUnavailable."""
        by_member = []
        for inquiry in inquiries:
            question = inquiry.question
            if question.member_id is not None:
                by_member.append(inquiry)
            elif question.text is not None:
                inquiry.query = self._of_text(question.text, inquiry)
            elif question.vector_D is not None:
                inquiry.query = self._of_vector(question.vector_D, question.filters)
            else:
                inquiry.query = self._of_posts(inquiry)
        if by_member:
            self._of_members(by_member)

    def _of_text(self, text: str, inquiry: Inquiry) -> Query:
        filters = inquiry.question.filters
        try:
            with inquiry.builder.step("encode"):
                vector_D = self._encoder.encode_text(text, inquiry.before_hot_s - self._clock())
        except RetrieverUnavailable:
            inquiry.builder.missing(Reason(Code.MODEL_UNAVAILABLE, self._encoder.problem or _NO_MODEL))
            return Query(None, without_canaries(filters), Asked(b"", b""), NO_MEMBER)
        return _query(vector_D, filters)

    def _of_vector(self, vector_D: Vector, filters: Filters) -> Query:
        if vector_D.shape != (self._dimension,):
            raise RequestRefused(
                f"vector: it has {vector_D.size} numbers; the vectors of this generation have {self._dimension}"
            )
        return _query(vector_D, filters)

    def _of_posts(self, inquiry: Inquiry) -> Query | None:
        """The mean of the posts' vectors."""
        ids = inquiry.question.post_ids
        with inquiry.builder.step("posts"):
            found = self._posts.find(ids, inquiry.before_hot_s, with_vectors=True)
        vectors = [post.vector for post in found.posts if post is not None and post.vector is not None]
        if not vectors and not found.problems:
            raise RequestRefused("post_ids: none of these posts is known", code=ProblemCode.NOT_FOUND)
        if len(vectors) < len(ids):
            for problem in found.problems:
                inquiry.builder.missing(problem)
            if not found.problems:
                inquiry.builder.note(Code.POSTS_UNKNOWN, _SOME_UNKNOWN)
        if not vectors:
            raise RetrieverUnavailable("the posts cannot be looked up now; try again")
        mean_D = np.mean(vectors, axis=0, dtype=np.float32)
        length = float(np.linalg.norm(mean_D))
        # Opposite vectors have no mean direction; then the first post's counts.
        vector_D = np.asarray(mean_D / length if length > 1e-6 else vectors[0], np.float32)
        filters = inquiry.question.filters
        return _query(vector_D, filters._replace(exclude_posts=filters.exclude_posts | frozenset(ids)))

    def _of_members(self, inquiries: Sequence[Inquiry]) -> None:
        ids = [MemberId(inquiry.question.member_id or "") for inquiry in inquiries]
        until_s = min(inquiry.before_hot_s for inquiry in inquiries)
        with inquiries[0].builder.step("member"):
            found = self._members.find(ids, until_s)
        for inquiry, member in zip(inquiries, found, strict=True):
            inquiry.query = _of_member(inquiry, member)


def _of_member(inquiry: Inquiry, found: FoundMember) -> Query | None:
    """
    unreadable                    None: member_unavailable, partial. Any post may be one that the member hid
    never written, or deleted     no vector: member_unknown
    no profile and no history     no vector: member_without_vector
    else                          the member's vector, and those of its interests
    and if that is not sure       partial, with the reason
    """
    member, builder = found.member, inquiry.builder
    if found.unreadable:
        builder.missing(Reason(Code.MEMBER_UNAVAILABLE, _UNAVAILABLE))
        return None
    if found.problem is not None:
        builder.missing(found.problem)
    question = inquiry.question
    if member is None or member.deleted:
        builder.note(Code.MEMBER_UNKNOWN, _UNKNOWN)
        return Query(None, member_filters(question, None), Asked(b"", b""), NO_MEMBER)
    if member.vector is None:
        builder.note(Code.MEMBER_WITHOUT_VECTOR, _NO_VECTOR)
    return member_query(question, member)


def member_query(question: Question, member: HeldMember) -> Query:
    asked = asked_by(question, member.member_id)
    version = version_of(member.revision, member.vector)
    return Query(member.vector, member_filters(question, member), asked, version, tuple(member.interests))


def asked_by(question: Question, member_id: MemberId) -> Asked:
    acted, seen, own = question.hide_acted, question.hide_seen, question.own_posts
    return asked_by_member(member_id, question.filters, acted=acted, seen=seen, own=own)


def member_filters(question: Question, member: HeldMember | None) -> Filters:
    """Posts that the member hid are always left out, own posts unless `own_posts` is set, posts acted on and seen if
    that is asked for."""
    filters = question.filters
    posts: list[Sequence[str]] = []
    if member is not None:
        posts.append(member.hidden)
        posts.append(member.acted if question.hide_acted else ())
        posts.append(member.seen if question.hide_seen else ())
    authors: set[str] = {CANARY_AUTHOR}
    if not question.own_posts and question.member_id is not None:
        authors.add(question.member_id)
    return filters._replace(
        exclude_posts=filters.exclude_posts.union(*posts), exclude_authors=filters.exclude_authors.union(authors)
    )


def without_canaries(filters: Filters) -> Filters:
    """The monitor asks for the posts of their author alone. Members never see them, whatever they ask for."""
    if asks_for_canaries(filters.only_authors):
        return filters
    return filters._replace(exclude_authors=filters.exclude_authors | _CANARY_AUTHORS)


def _query(vector_D: Vector, filters: Filters) -> Query:
    return Query(vector_D, without_canaries(filters), asked_by_vector(vector_D, filters), NO_MEMBER)
