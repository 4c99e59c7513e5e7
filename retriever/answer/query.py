"""Makes a query of a request: a vector, and the filters that both tiers apply before scoring. Notes in the answer why a
vector is missing."""

from typing import NamedTuple

from indexer.tiers import Filters, StoredMember, StoredPost
from retriever.answer.answer_builder import AnswerBuilder
from retriever.answer.members import Members
from retriever.answer.warming_encoder import WarmingEncoder
from retriever.errors import RetrieverUnavailable
from schemas.api import RetrieveRequest
from schemas.embeddings import Vector
from schemas.ids import MemberId
from schemas.times import to_micros


class Query(NamedTuple):
    """Without a vector, the trending lists answer."""

    vector_D: Vector | None
    filters: Filters


def text_query(request: RetrieveRequest, text: str, encoder: WarmingEncoder, answer: AnswerBuilder) -> Query:
    vector: Vector | None = None
    with answer.step("encode"):
        try:
            vector = encoder.encode_text(text)
        except RetrieverUnavailable as error:
            answer.missing("model_unavailable", error)
    return Query(vector, _filters(request, None))


def member_query(
    request: RetrieveRequest, member_id: MemberId, members: Members, answer: AnswerBuilder
) -> Query | None:
    """
    cold tier fails, member not cached   None: member_unavailable, partial. Any post may be one that the member hid
    cold tier fails, member cached       the cached vector; the search will note that the cold tier is missing
    never written, or deleted            no vector: member_unknown
    neither profile nor history          no vector: member_without_vector
    else                                 the member's vector
    """
    with answer.step("member"):
        member, failure = members.find(member_id)
    if failure is not None and member is None:
        answer.missing("member_unavailable", failure)
        return None
    filters = _filters(request, member)
    if member is None or member.deleted:
        answer.note("member_unknown")
        return Query(None, filters)
    if member.vector is None:
        answer.note("member_without_vector")
    return Query(member.vector, filters)


def _filters(request: RetrieveRequest, member: StoredMember | None) -> Filters:
    """Posts that the member hid are always excluded, own posts unless `own_posts` is set, posts acted on if
    `hide_acted` is set."""
    posts = set(request.exclude_posts)
    if member is not None:
        posts.update(member.hidden)
        posts.update(member.acted if request.hide_acted else ())
    authors = set(request.exclude_authors)
    if request.member_id is not None and not request.own_posts:
        authors.add(request.member_id)
    after = request.created_after
    return Filters(
        languages=frozenset(request.languages),
        created_after_us=None if after is None else to_micros(after),
        exclude_authors=frozenset(authors),
        exclude_posts=frozenset(posts),
    )


def passes(post: StoredPost, filters: Filters) -> bool:
    """Whether a post that no search returned passes the filters. The tiers apply the same ones before scoring."""
    return (
        not post.deleted
        and (not filters.languages or post.language in filters.languages)
        and (filters.created_after_us is None or post.created_at_us > filters.created_after_us)
        and post.author_id not in filters.exclude_authors
        and post.post_id not in filters.exclude_posts
    )
