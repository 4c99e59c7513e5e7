"""The cold tier on a Qdrant server or cluster.

Owns two collections of one generation, the conditions that let the server refuse old writes, and the translation of the
client's errors. Whatever the server answers badly, or refuses, is TierUnavailable: a record is never to blame for it.
"""

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc
import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException

from indexer.cold.qdrant_points import LIVE, payload_of, point_id, to_filter, to_member, to_point, to_post
from indexer.errors import TierRefused, TierUnavailable
from indexer.records import check, newest, sorted_hits
from indexer.settings import ColdSettings
from indexer.tiers import (
    NO_FILTERS,
    Beat,
    Clock,
    Filters,
    Hits,
    IndexRecord,
    StoredMember,
    StoredPost,
    no_beat,
)
from schemas.embeddings import Vector
from schemas.ids import Generation, Kind, MemberId, Micros, Offset, Partition, PostId, Revision
from schemas.times import now_us

_READ_POINTS: Final = 1_000
_OVERSAMPLING: Final = 1.25
"""int8 scores order neighbours wrongly at the edge of k."""
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
_PARAMS: Final = models.SearchParams(
    quantization=models.QuantizationSearchParams(rescore=True, oversampling=_OVERSAMPLING)
)


class _Place(NamedTuple):
    """What a stored point says of its last write."""

    revision: Revision
    partition: Partition
    offset: Offset


class QdrantColdTier:
    """The methods say what `ColdTier` says. A write returns when the server has applied it and has it in its log, so
    `flush` has nothing to wait for. A tombstone is a point without a vector, which no search sees."""

    def __init__(
        self,
        settings: ColdSettings,
        generation: Generation,
        dimension: int | None = None,
        clock: Clock = now_us,
        client: QdrantClient | None = None,
    ) -> None:
        """Asks the server nothing yet. With a dimension the collections are made where they are missing, by the first
        call; without one the tier is only to be read."""
        self._settings = settings
        self._dimension = dimension
        self._clock = clock
        self._client = client or _connect(settings)
        self._names: dict[Kind, str] = {
            "post": f"nearline-posts-{generation}",
            "member": f"nearline-members-{generation}",
        }
        self._ready = dimension is None
        self._making = threading.Lock()

    def write(self, kind: Kind, records: Sequence[IndexRecord]) -> int:
        for record in records:
            check(record.embedding, self._sure_dimension())
        with self._errors():
            stored = self._places(kind, {record.embedding.entity_id for record in records})
            kept, changes = newest(
                records, lambda entity_id: stored[entity_id].revision if entity_id in stored else _NEW
            )
            now = self._clock()
            for partition in {record.partition for record in kept}:
                self._write(kind, [record for record in kept if record.partition == partition], stored, now)
        return changes

    def flush(self) -> None: ...

    def search(self, query_D: Vector, k: int, filters: Filters = NO_FILTERS) -> Hits:
        with self._errors():
            found = self._client.query_points(
                self._names["post"],
                query=query_D.tolist(),
                limit=k,
                query_filter=to_filter(filters),
                search_params=_PARAMS,
                with_payload=["post_id", "revision"],
            ).points
        scores = np.array([point.score for point in found], np.float32)
        payloads = [payload_of(point) for point in found]
        return sorted_hits([one["post_id"] for one in payloads], scores, [one["revision"] for one in payloads])

    def posts(self, ids: Sequence[PostId], *, with_vectors: bool = False) -> list[StoredPost | None]:
        points = self._read("post", ids, True, with_vectors)
        return [None if (point := points.get(point_id(one))) is None else to_post(point) for one in ids]

    def members(self, ids: Sequence[MemberId]) -> list[StoredMember | None]:
        points = self._read("member", ids, True, True)
        return [None if (point := points.get(point_id(one))) is None else to_member(point) for one in ids]

    def scroll_posts(self) -> Iterator[StoredPost]:
        offset: Any = None
        while True:
            with self._errors():
                points, offset = self._client.scroll(
                    self._names["post"], scroll_filter=LIVE, limit=_READ_POINTS, offset=offset, with_payload=True
                )
            yield from map(to_post, points)
            if offset is None:
                return

    def count(self, kind: Kind) -> int:
        with self._errors():
            return self._client.count(self._names[kind], count_filter=LIVE).count

    def sweep(self, older_than_us: Micros, beat: Beat = no_beat) -> int:
        old = models.Filter(
            must=[
                models.FieldCondition(key="deleted", match=models.MatchValue(value=True)),
                models.FieldCondition(key="written_at_us", range=models.Range(lt=older_than_us)),
            ]
        )
        swept = 0
        with self._errors():
            for name in self._names.values():
                swept += self._client.count(name, count_filter=old).count
                self._client.delete(name, models.FilterSelector(filter=old))
                beat()
        return swept

    def close(self) -> None:
        self._client.close()

    def _write(self, kind: Kind, records: list[IndexRecord], stored: dict[str, _Place], now: Micros) -> None:
        """Of one partition. An old owner that wakes up holds old offsets, so one condition serves the batch; what the
        tier has from this batch already, or from another partition, is written singly under a condition of its own."""
        first = min(record.offset for record in records)
        partition = records[0].partition
        ours = [
            record for record in records if not _written_since(stored.get(record.embedding.entity_id), record, first)
        ]
        singly = [record for record in records if _written_since(stored.get(record.embedding.entity_id), record, first)]
        if ours:
            before = [
                models.FieldCondition(key="partition", match=models.MatchValue(value=partition)),
                models.FieldCondition(key="offset", range=models.Range(lt=first)),
            ]
            self._upsert(kind, ours, models.Filter(must=before), now)
        for record in singly:
            older = models.FieldCondition(key="revision", range=models.Range(lt=record.embedding.revision))
            self._upsert(kind, [record], models.Filter(must=[older]), now)

    def _upsert(self, kind: Kind, records: list[IndexRecord], condition: models.Filter, now: Micros) -> None:
        points = [to_point(record, now) for record in records]
        self._client.upsert(self._names[kind], points, wait=True, update_filter=condition)

    def _places(self, kind: Kind, entity_ids: set[str]) -> dict[str, _Place]:
        ids = sorted(entity_ids)
        points = self._read(kind, ids, ["revision", "partition", "offset"], False)
        found = {entity_id: points[point_id(entity_id)] for entity_id in ids if point_id(entity_id) in points}
        return {entity_id: _Place(**payload_of(point)) for entity_id, point in found.items()}

    def _read(
        self, kind: Kind, ids: Sequence[str], payload: bool | list[str], vectors: bool
    ) -> dict[str, models.Record]:
        """By point id."""
        points: list[models.Record] = []
        with self._errors():
            for first in range(0, len(ids), _READ_POINTS):
                page = [point_id(entity_id) for entity_id in ids[first : first + _READ_POINTS]]
                points += self._client.retrieve(self._names[kind], page, with_payload=payload, with_vectors=vectors)
        return {str(point.id): point for point in points}

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            self._make_ready()
            yield
        except (ApiException, QdrantException, grpc.RpcError, OSError, ValueError) as error:
            raise TierUnavailable(_sentence(error)) from error

    def _make_ready(self) -> None:
        with self._making:
            if not self._ready:
                for kind in self._names:
                    self._make(kind)
                self._ready = True

    def _make(self, kind: Kind) -> None:
        name, dimension = self._names[kind], self._sure_dimension()
        if not self._client.collection_exists(name):
            quantize = kind == "post" and self._settings.quantize
            int8 = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
            self._client.create_collection(
                name,
                vectors_config=models.VectorParams(size=dimension, distance=models.Distance.DOT),
                # No graph: the scan is exact, and building a segment costs a seventh.
                hnsw_config=models.HnswConfigDiff(m=0),
                quantization_config=models.ScalarQuantization(scalar=int8) if quantize else None,
            )
        for field, schema in _INDEXES[kind].items():
            self._client.create_payload_index(name, field, schema, wait=True)
        vectors = self._client.get_collection(name).config.params.vectors
        if not isinstance(vectors, models.VectorParams) or vectors.size != dimension:
            # Not TierRefused: a record would be taken for the cause, and be a dead letter.
            raise TierUnavailable(
                f"the collection {name} does not hold vectors of {dimension}; remove it or use another server"
            )

    def _sure_dimension(self) -> int:
        if self._dimension is None:
            raise TierRefused("this connection to the cold tier only reads")
        return self._dimension


_NEW: Final = Revision(0)


def _connect(settings: ColdSettings) -> QdrantClient:
    if settings.url is None:
        raise TierRefused("no Qdrant server is configured; set cold.url")
    key = settings.api_key.get_secret_value() if settings.api_key is not None else None
    with warnings.catch_warnings():
        # Of a key that goes over an insecure connection: whoever wrote http into `cold.url` knows.
        warnings.simplefilter("ignore", UserWarning)
        return QdrantClient(
            settings.url,
            grpc_port=settings.grpc_port,
            api_key=key,
            prefer_grpc=True,
            timeout=max(1, round(settings.timeout_s)),
            grpc_options={} if settings.ca_file is None else {"root_certificates": _read_ca(settings.ca_file)},
            # Asks the server at once and only warns.
            check_compatibility=False,
        )


def _read_ca(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise TierRefused(f"cold.ca_file: {file} cannot be read: {error.strerror}") from error


def _written_since(stored: _Place | None, record: IndexRecord, first: Offset) -> bool:
    return stored is not None and (stored.partition != record.partition or stored.offset >= first)


def _sentence(error: Exception) -> str:
    """One line without the request."""
    if not isinstance(error, grpc.RpcError):
        return f"{_AWAY}: {next(iter(str(error).strip().splitlines()), type(error).__name__)}"
    code = getattr(error, "code", lambda: None)()
    details = getattr(error, "details", lambda: None)()
    reason = f"{code.name if code is not None else 'gRPC'}: {details}"
    if code in _KEY_REFUSED:
        return f"the Qdrant server refuses the API key ({reason}); set cold.api_key"
    return f"the Qdrant server refuses the request ({reason})" if code in _REFUSED else f"{_AWAY}: {reason}"


_AWAY: Final = "the Qdrant server does not answer as it should"
_KEY_REFUSED: Final = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_REFUSED: Final = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
)
"""Waited out all the same: it is the server or its settings that must change, and never a record's fault."""
