"""The cold tier on a Qdrant server or cluster.

Owns the two collections of one generation, and the conditions with which the server refuses outdated writes. Every
error of the server becomes TierUnavailable, never TierRefused, because no record is to blame for it. Knows no topic.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from qdrant_client import QdrantClient, models

from indexer.cold.deadline import Deadline
from indexer.cold.qdrant.collections import check_collection, create_collection
from indexer.cold.qdrant.connection import connect, server_errors
from indexer.cold.qdrant.names import collection_name
from indexer.cold.qdrant.points import (
    LIVE,
    payload_of,
    point_id,
    to_filter,
    to_member,
    to_point,
    to_post,
    written_before,
    written_from_older,
)
from indexer.cold.qdrant.reads import PointHits, PointQuery, QdrantReads
from indexer.errors import TierRefused, TierUnavailable
from indexer.records import check_vector, cold_hits
from indexer.revision_guard import Written, newest_records
from indexer.settings import ColdSettings
from indexer.tiers import (
    NO_FILTERS,
    Beat,
    Clock,
    ColdHits,
    ColdQuery,
    Filters,
    IndexRecord,
    Offsets,
    StoredMember,
    StoredPost,
    no_beat,
)
from schemas.embeddings import Vector
from schemas.ids import Generation, Kind, MemberId, Micros, PostId
from schemas.times import now_us

_READ_POINTS: Final = 1_000
_INDEXES: Final[dict[Kind, dict[str, models.PayloadSchemaType]]] = {
    "post": {
        "author_id": models.PayloadSchemaType.KEYWORD,
        "language": models.PayloadSchemaType.KEYWORD,
        "created_at_us": models.PayloadSchemaType.INTEGER,
        "deleted": models.PayloadSchemaType.BOOL,
        "written_at_us": models.PayloadSchemaType.INTEGER,
    },
    "member": {
        "deleted": models.PayloadSchemaType.BOOL,
        "written_at_us": models.PayloadSchemaType.INTEGER,
    },
}


class QdrantColdTier:
    """Implements `ColdTier`. A write returns when the server has applied it and has it in its log, so `flush` has
    nothing to wait for. A tombstone is a point without a vector, which searches skip."""

    def __init__(
        self,
        settings: ColdSettings,
        generation: Generation,
        dimension: int | None = None,
        clock: Clock = now_us,
        client: QdrantClient | None = None,
        *,
        position: Callable[[], Offsets] | None = None,
    ) -> None:
        """Asks the server nothing yet. With a dimension, the first call of a method creates missing collections.
        Without a dimension the tier can only be read.

        `position` gives the offsets that the index group has committed, for a process that does not own the tier. It is
        called before each search and must not block. None: what this tier was told by `reached`."""
        self._settings = settings
        self._dimension = dimension
        self._clock = clock
        self._client = client or connect(settings)
        self._reads = QdrantReads(self._client)
        self._names: dict[Kind, str] = {
            "post": collection_name("post", generation),
            "member": collection_name("member", generation),
        }
        self._collections_exist = dimension is None
        self._creating = threading.Lock()
        self._reached: Offsets = {}
        self._ask_position = position or (lambda: self._reached)

    def write(self, kind: Kind, records: Sequence[IndexRecord], *, again: bool = False) -> int:
        for record in records:
            check_vector(record.embedding, self._writer_dimension())
        with self._server():
            stored = self._last_writes(kind, {record.embedding.entity_id for record in records})
            to_write, num_changes = newest_records(records, stored.get, again=again)
            now = self._clock()
            for partition in {record.partition for record in to_write}:
                of_partition = [record for record in to_write if record.partition == partition]
                self._write_partition(kind, of_partition, stored, now, again=again)
        return num_changes

    def flush(self) -> None: ...

    def reached(self, offsets: Offsets) -> None:
        self._reached = {**self._reached, **offsets}

    def is_empty(self) -> bool:
        with self._server():
            return not any(self._reads.count(name, None, self._deadline(None)) for name in self._names.values())

    def search(
        self, query_D: Vector, k: int, filters: Filters = NO_FILTERS, *, timeout_s: float | None = None
    ) -> ColdHits:
        return self.search_batch([ColdQuery(query_D, k, filters)], timeout_s=timeout_s)[0]

    def search_batch(self, queries: Sequence[ColdQuery], *, timeout_s: float | None = None) -> list[ColdHits]:
        # Before the server is asked, because it may only hold more than the position says.
        position = self.position()
        asked = [PointQuery(query.vector_D, query.k, to_filter(query.filters), query.exact) for query in queries]
        with self._server():
            answers = self._reads.search(self._names["post"], asked, ("post_id", "revision"), self._deadline(timeout_s))
        return [_to_hits(hits, position) for hits in answers]

    def position(self, *, timeout_s: float | None = None) -> Offsets:
        return self._ask_position()

    def posts(
        self, ids: Sequence[PostId], *, with_vectors: bool = False, timeout_s: float | None = None
    ) -> list[StoredPost | None]:
        points = self._read("post", ids, None, self._deadline(timeout_s), vectors=with_vectors)
        return [None if (point := points.get(point_id(post_id))) is None else to_post(point) for post_id in ids]

    def members(self, ids: Sequence[MemberId], *, timeout_s: float | None = None) -> list[StoredMember | None]:
        points = self._read("member", ids, None, self._deadline(timeout_s), vectors=True)
        return [None if (point := points.get(point_id(member_id))) is None else to_member(point) for member_id in ids]

    def scroll_posts(self, *, timeout_s: float | None = None) -> Iterator[StoredPost]:
        offset: Any = None
        while True:
            with self._server():
                points, offset = self._reads.scroll(
                    self._names["post"], LIVE, _READ_POINTS, offset, self._deadline(timeout_s)
                )
            yield from map(to_post, points)
            if offset is None:
                return

    def count(self, kind: Kind, *, timeout_s: float | None = None) -> int:
        with self._server():
            return self._reads.count(self._names[kind], LIVE, self._deadline(timeout_s))

    def sweep(self, older_than_us: Micros, beat: Beat = no_beat) -> int:
        old_tombstones = models.Filter(
            must=[
                models.FieldCondition(key="deleted", match=models.MatchValue(value=True)),
                models.FieldCondition(key="written_at_us", range=models.Range(lt=older_than_us)),
            ]
        )
        swept = 0
        with self._server():
            for name in self._names.values():
                swept += self._client.count(name, count_filter=old_tombstones).count
                self._client.delete(name, models.FilterSelector(filter=old_tombstones))
                beat()
        return swept

    def close(self) -> None:
        self._client.close()

    def _write_partition(
        self, kind: Kind, records: list[IndexRecord], stored: dict[str, Written], now: Micros, *, again: bool
    ) -> None:
        """Writes records of one partition, under conditions that the server checks. So an earlier owner of the
        partition that still has an unfinished write overwrites nothing newer.

        A condition for each point is slow, so one condition is sent for the whole batch: the stored point comes from
        this partition, and from an offset before the first one of the batch. An earlier owner writes a batch with lower
        offsets, so this condition refuses its points. A point that is stored from this batch already, or from another
        partition, does not meet the condition. It is written alone, if the stored record is older.

        Records that are written again are themselves stored. For them the condition is that the stored point comes from
        no offset behind the last one of the batch. A newer record of one of their entities is behind that."""
        end = max(record.offset for record in records) + 1 if again else min(record.offset for record in records)
        in_bulk: list[IndexRecord] = []
        alone: list[IndexRecord] = []
        for record in records:
            last_write = stored.get(record.embedding.entity_id)
            is_before = last_write is None or (last_write.partition == record.partition and last_write.offset < end)
            (in_bulk if is_before else alone).append(record)
        if in_bulk:
            self._upsert(kind, in_bulk, written_before(records[0].partition, end), now)
        for record in alone:
            self._upsert(kind, [record], written_from_older(record), now)

    def _upsert(self, kind: Kind, records: list[IndexRecord], condition: models.Filter, now: Micros) -> None:
        points = [to_point(record, now) for record in records]
        # With `wait` the server answers when every active replica has applied the write. So a search at any of them
        # finds it, and the position may move.
        result = self._client.upsert(self._names[kind], points, wait=True, update_filter=condition)
        if result.status is not models.UpdateStatus.COMPLETED:
            raise TierUnavailable(f"the Qdrant server has not applied a write yet: {result.status}")

    def _last_writes(self, kind: Kind, entity_ids: set[str]) -> dict[str, Written]:
        """By entity id. Entities that are not stored are left out."""
        ids = sorted(entity_ids)
        deadline = self._deadline(None)
        points = self._read(kind, ids, ("revision", "partition", "offset"), deadline, vectors=False)
        stored = {entity_id: points[point_id(entity_id)] for entity_id in ids if point_id(entity_id) in points}
        return {entity_id: Written(**payload_of(point)) for entity_id, point in stored.items()}

    def _read(
        self, kind: Kind, ids: Sequence[str], fields: Sequence[str] | None, deadline: Deadline, *, vectors: bool
    ) -> dict[str, models.Record]:
        """By point id."""
        points: list[models.Record] = []
        with self._server():
            for first in range(0, len(ids), _READ_POINTS):
                page = [point_id(entity_id) for entity_id in ids[first : first + _READ_POINTS]]
                points += self._reads.get(self._names[kind], page, fields, deadline, vectors=vectors)
        return {str(point.id): point for point in points}

    def _deadline(self, timeout_s: float | None) -> Deadline:
        return Deadline(self._settings.timeout_s if timeout_s is None else timeout_s, "the Qdrant server")

    @contextmanager
    def _server(self) -> Iterator[None]:
        """To be put around every call of the client. Translates errors. Before the very first call it creates missing
        collections."""
        with server_errors():
            self._ensure_collections()
            yield

    def _ensure_collections(self) -> None:
        with self._creating:
            if not self._collections_exist:
                for kind in self._names:
                    self._ensure_collection(kind)
                self._collections_exist = True

    def _ensure_collection(self, kind: Kind) -> None:
        name = self._names[kind]
        if not self._client.collection_exists(name):
            create_collection(self._client, name, self._writer_dimension(), self._settings, quantize=kind == "post")
        for field, schema in _INDEXES[kind].items():
            self._client.create_payload_index(name, field, schema, wait=True)
        check_collection(self._client, name, self._writer_dimension(), self._settings)

    def _writer_dimension(self) -> int:
        if self._dimension is None:
            raise TierRefused("this connection to the cold tier only reads")
        return self._dimension


def _to_hits(hits: PointHits, position: Offsets) -> ColdHits:
    ids = [PostId(payload["post_id"].string_value) for payload in hits.payloads]
    revisions = (payload["revision"].integer_value for payload in hits.payloads)
    return cold_hits(ids, hits.scores, np.fromiter(revisions, np.int64, len(ids)), position)
