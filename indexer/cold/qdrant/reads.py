"""The calls that read from a Qdrant server, each with a deadline.

They call the client's gRPC stub themselves: the client's own methods take whole seconds only, and they make a Python
object of every hit, which takes longer than the hits' transfer. Knows collections and points; knows neither posts nor
members.
"""

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as wire
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

from indexer.cold.deadline import Deadline
from indexer.tiers import Scores
from schemas.embeddings import Vector

_OVERSAMPLING: Final = 1.25
"""The server reads this many times k points by their int8 scores, and then computes the exact scores. The int8 scores
order close neighbours wrongly, so some of the k best may be just behind the first k."""
_EXACT_SCORES: Final = wire.SearchParams(
    quantization=wire.QuantizationSearchParams(rescore=True, oversampling=_OVERSAMPLING)
)

_EXACT: Final = wire.SearchParams(exact=True, quantization=wire.QuantizationSearchParams(ignore=True))


class PointQuery(NamedTuple):
    vector_D: Vector
    limit: int
    filter: models.Filter | None
    exact: bool = False


class PointHits(NamedTuple):
    """Best first."""

    scores: Scores
    payloads: list[Any]
    """By field, each a protobuf `Value`."""


class QdrantReads:
    def __init__(self, client: QdrantClient) -> None:
        self._client = client

    def search(
        self, collection: str, queries: Sequence[PointQuery], fields: Sequence[str], deadline: Deadline
    ) -> list[PointHits]:
        """The hits with these fields of their payload."""
        with_fields = wire.WithPayloadSelector(include=wire.PayloadIncludeSelector(fields=fields))
        requests = [
            wire.QueryPoints(
                collection_name=collection,
                query=wire.Query(nearest=wire.VectorInput(dense=wire.DenseVector(data=query.vector_D.tolist()))),
                filter=_to_wire(query.filter),
                params=_EXACT if query.exact else _EXACT_SCORES,
                limit=query.limit,
                with_payload=with_fields,
            )
            for query in queries
        ]
        left_s = deadline.left_s()
        request = wire.QueryBatchPoints(
            collection_name=collection, query_points=requests, timeout=_whole_seconds(left_s)
        )
        answers = self._client.grpc_points.QueryBatch(request, timeout=left_s).result
        return [
            PointHits(
                np.fromiter((point.score for point in answer.result), np.float32, len(answer.result)),
                [point.payload for point in answer.result],
            )
            for answer in answers
        ]

    def get(
        self, collection: str, ids: Sequence[str], fields: Sequence[str] | None, deadline: Deadline, *, vectors: bool
    ) -> list[models.Record]:
        """The points of these ids that are stored, in any order. Without `fields` they have their whole payload."""
        left_s = deadline.left_s()
        request = wire.GetPoints(
            collection_name=collection,
            ids=[wire.PointId(uuid=point_id) for point_id in ids],
            with_payload=wire.WithPayloadSelector(enable=True)
            if fields is None
            else wire.WithPayloadSelector(include=wire.PayloadIncludeSelector(fields=fields)),
            with_vectors=wire.WithVectorsSelector(enable=vectors),
            timeout=_whole_seconds(left_s),
        )
        points = self._client.grpc_points.Get(request, timeout=left_s).result
        return [GrpcToRest.convert_retrieved_point(point) for point in points]

    def scroll(
        self, collection: str, matching: models.Filter, limit: int, offset: Any, deadline: Deadline
    ) -> tuple[list[models.Record], Any]:
        """A page of points, and the offset of the next page; None after the last one. The first page has None."""
        left_s = deadline.left_s()
        request = wire.ScrollPoints(
            collection_name=collection,
            filter=_to_wire(matching),
            limit=limit,
            offset=offset,
            with_payload=wire.WithPayloadSelector(enable=True),
            timeout=_whole_seconds(left_s),
        )
        page = self._client.grpc_points.Scroll(request, timeout=left_s)
        points = [GrpcToRest.convert_retrieved_point(point) for point in page.result]
        return points, page.next_page_offset if page.HasField("next_page_offset") else None

    def count(self, collection: str, matching: models.Filter | None, deadline: Deadline) -> int:
        left_s = deadline.left_s()
        request = wire.CountPoints(
            collection_name=collection, filter=_to_wire(matching), exact=True, timeout=_whole_seconds(left_s)
        )
        return int(self._client.grpc_points.Count(request, timeout=left_s).result.count)


def _to_wire(points: models.Filter | None) -> Any:
    return None if points is None else RestToGrpc.convert_filter(points)


def _whole_seconds(seconds: float | None) -> int | None:
    """For the server, so that it does not work on when nobody waits any more."""
    return None if seconds is None else max(1, math.ceil(seconds))
