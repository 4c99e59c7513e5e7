"""The cold tier as a plain dictionary: obviously right, but slow and not durable. The contract tests compare with
it."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from indexer.records import check_vector, stored_member, stored_post
from indexer.revision_guard import Written, is_newer, written_from
from indexer.tiers import (
    NO_FILTERS,
    Beat,
    Clock,
    ColdHits,
    ColdQuery,
    Filters,
    Hits,
    IndexRecord,
    Offsets,
    StoredMember,
    StoredPost,
    no_beat,
)
from schemas.embeddings import PostEmbedding, Vector
from schemas.ids import KINDS, Kind, MemberId, Micros, PostId
from schemas.times import now_us


class BruteColdTier:
    def __init__(self, dimension: int, clock: Clock = now_us) -> None:
        self._dimension = dimension
        self._clock = clock
        self._posts: dict[str, StoredPost] = {}
        self._members: dict[str, StoredMember] = {}
        self._written_at: dict[tuple[Kind, str], Micros] = {}
        self._written: dict[tuple[Kind, str], Written] = {}
        self._position: Offsets = {}

    def write(self, kind: Kind, records: Sequence[IndexRecord], *, again: bool = False) -> int:
        for record in records:
            check_vector(record.embedding, self._dimension)
        return sum(self._apply(kind, record, again) for record in records)

    def _apply(self, kind: Kind, record: IndexRecord, again: bool) -> bool:
        embedding = record.embedding
        written = self._written.get((kind, embedding.entity_id))
        if written is not None and not is_newer(record, written, or_the_same=again):
            return False
        self._written[kind, embedding.entity_id] = written_from(record)
        if isinstance(embedding, PostEmbedding):
            self._posts[embedding.post_id] = stored_post(embedding)
        else:
            self._members[embedding.member_id] = stored_member(embedding)
        self._written_at[kind, embedding.entity_id] = self._clock()
        return True

    def flush(self) -> None: ...

    def reached(self, offsets: Offsets) -> None:
        self._position = {**self._position, **offsets}

    def is_empty(self) -> bool:
        return not (self._posts or self._members)

    def search(
        self, query_D: Vector, k: int, filters: Filters = NO_FILTERS, *, timeout_s: float | None = None
    ) -> ColdHits:
        position = self._position
        hits = _search(list(self._posts.values()), query_D, k, filters)
        return ColdHits(hits.post_ids, hits.scores, np.array(hits.revisions, np.int64), position)

    def search_batch(self, queries: Sequence[ColdQuery], *, timeout_s: float | None = None) -> list[ColdHits]:
        return [self.search(query.vector_D, query.k, query.filters) for query in queries]

    def position(self, *, timeout_s: float | None = None) -> Offsets:
        return self._position

    def posts(
        self, ids: Sequence[PostId], *, with_vectors: bool = False, timeout_s: float | None = None
    ) -> list[StoredPost | None]:
        return [_shown(self._posts.get(post_id), with_vectors) for post_id in ids]

    def members(self, ids: Sequence[MemberId], *, timeout_s: float | None = None) -> list[StoredMember | None]:
        return [self._members.get(member_id) for member_id in ids]

    def scroll_posts(self, *, timeout_s: float | None = None) -> Iterator[StoredPost]:
        return (post._replace(vector=None) for post in list(self._posts.values()) if not post.deleted)

    def count(self, kind: Kind, *, timeout_s: float | None = None) -> int:
        return sum(not entity.deleted for entity in self._entities(kind).values())

    def sweep(self, older_than_us: Micros, beat: Beat = no_beat) -> int:
        swept = 0
        for kind in KINDS:
            entities = self._entities(kind)
            old = [
                entity_id
                for entity_id, entity in entities.items()
                if entity.deleted and self._written_at[kind, entity_id] < older_than_us
            ]
            for entity_id in old:
                del entities[entity_id], self._written[kind, entity_id]
            swept += len(old)
            beat()
        return swept

    def close(self) -> None: ...

    def _entities(self, kind: Kind) -> dict[str, StoredPost] | dict[str, StoredMember]:
        return self._posts if kind == "post" else self._members


def _passes(post: StoredPost, filters: Filters) -> bool:
    return (
        not post.deleted
        and (not filters.languages or post.language in filters.languages)
        and (filters.created_after_us is None or post.created_at_us > filters.created_after_us)
        and (filters.created_before_us is None or post.created_at_us < filters.created_before_us)
        and post.author_id not in filters.exclude_authors
        and (filters.only_authors is None or post.author_id in filters.only_authors)
        and post.post_id not in filters.exclude_posts
        and (filters.only_posts is None or post.post_id in filters.only_posts)
    )


def _search(posts: Iterable[StoredPost], query_D: Vector, k: int, filters: Filters) -> Hits:
    scored = [
        (-float(np.dot(post.vector, query_D)), post.post_id, post.revision)
        for post in posts
        if _passes(post, filters) and post.vector is not None
    ]
    best = sorted(scored)[:k]
    scores = np.array([-score for score, _, _ in best], np.float32)
    return Hits([post_id for _, post_id, _ in best], scores, [revision for _, _, revision in best])


def _shown(post: StoredPost | None, with_vectors: bool) -> StoredPost | None:
    return post if post is None or with_vectors else post._replace(vector=None)
