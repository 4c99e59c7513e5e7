"""A Qdrant server that can be told to fail, in this process, on a real port.

It answers the cold tier's calls from the client's own mode without a server. If NEARLINE_TEST_QDRANT_URL names a real
server (and NEARLINE_TEST_QDRANT_GRPC_PORT its port, if that is not 6334), it passes all calls on to that server.

`python -m tests.kit.qdrant_server` runs one until stdin closes, and prints its gRPC port.
"""

import os
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from typing import Any, Final, Self, cast
from urllib.parse import urlsplit

import grpc
from qdrant_client import grpc as wire
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.local.qdrant_local import QdrantLocal

from indexer.settings import ColdSettings
from tests.kit.certificates import Certificate

REAL_URL: Final = "NEARLINE_TEST_QDRANT_URL"
REAL_GRPC_PORT: Final = "NEARLINE_TEST_QDRANT_GRPC_PORT"
HOST: Final = "127.0.0.1"
KEY: Final = "a-key-of-qdrant-that-nobody-may-see"

Fault = Callable[["QdrantServer", grpc.ServicerContext], None]
"""Runs before an answer. If it does not return, there is no answer."""


class QdrantServer:
    """Use it as a context. Every call must carry KEY."""

    def __init__(self, certificate: Certificate | None = None) -> None:
        self._credentials = certificate and grpc.ssl_server_credentials(
            [(certificate.private_key_file.read_bytes(), certificate.certificate_file.read_bytes())]
        )
        self._backend = _RealServer() if REAL_URL in os.environ else _Memory()
        self._stopped = Event()
        self.faults: list[tuple[str, Fault]] = []
        """The first fault waits for a call of its name; the others wait for the first."""
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.grpc_port: int = free.getsockname()[1]

    @property
    def url(self) -> str:
        return f"{'https' if self._credentials else 'http'}://{HOST}:1"

    def settings(self, **over: Any) -> ColdSettings:
        """The settings of a tier that asks this server."""
        return ColdSettings.model_validate({"url": self.url, "grpc_port": self.grpc_port, "api_key": KEY, **over})

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._backend.close()

    def start(self) -> None:
        self._stopped.clear()
        self._server = grpc.server(ThreadPoolExecutor(4), handlers=[_Every(self._answer)])
        address = f"{HOST}:{self.grpc_port}"
        if self._credentials is None:
            self._server.add_insecure_port(address)
        else:
            self._server.add_secure_port(address, self._credentials)
        self._server.start()

    def stop(self) -> None:
        """Stops the server, in the middle of answers too."""
        self._stopped.set()
        self._server.stop(None).wait(10)

    def cut(self) -> None:
        """Stops the server from within an answer."""
        self._server.stop(None)

    def wait(self, seconds: float) -> None:
        self._stopped.wait(seconds)

    def _answer(self, method: str, body: bytes, context: grpc.ServicerContext) -> bytes:
        if ("api-key", KEY) not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Must provide an API key or an Authorization bearer token")
        name = method.removeprefix("/qdrant.")
        if self.faults and self.faults[0][0] == name:
            self.faults.pop(0)[1](self, context)
        try:
            return self._backend.answer(name, body)
        except grpc.RpcError as error:
            refusal = cast(grpc.Call, error)
            context.abort(refusal.code(), refusal.details())
        except ValueError as error:
            context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        raise AssertionError("abort raises")


class _RealServer:
    """Passes calls on to a real server, and at the end deletes the collections that were made. Raises RpcError."""

    def __init__(self) -> None:
        port = os.environ.get(REAL_GRPC_PORT, "6334")
        self._channel = grpc.insecure_channel(f"{urlsplit(os.environ[REAL_URL]).hostname}:{port}")
        self._made: set[str] = set()

    def close(self) -> None:
        for name in self._made:
            self.answer("Collections/Delete", wire.DeleteCollection(collection_name=name).SerializeToString())
        self._channel.close()

    def answer(self, name: str, body: bytes) -> bytes:
        if name == "Collections/Create":
            self._made.add(wire.CreateCollection.FromString(body).collection_name)
        # A server without a key ignores it; a QdrantServer in another process asks for it.
        return bytes(self._channel.unary_unary(f"/qdrant.{name}")(body, timeout=10, metadata=[("api-key", KEY)]))


class _Memory:
    """Answers from the client's own mode without a server: right for the calls, not for their speed. Raises
    ValueError where a collection is missing."""

    def __init__(self) -> None:
        self._local = QdrantLocal(":memory:")
        self._made: dict[str, Any] = {}
        """The requests that made the collections, by name."""
        self._lock = Lock()

    def close(self) -> None:
        self._local.close()

    def answer(self, name: str, body: bytes) -> bytes:
        service, call = name.split("/")
        with self._lock:
            answer = self._of_collections(call, body) if service == "Collections" else self._of_points(call, body)
        return bytes(answer.SerializeToString())

    def _of_collections(self, call: str, body: bytes) -> Any:
        match call:
            case "CollectionExists":
                exists = self._local.collection_exists(wire.CollectionExistsRequest.FromString(body).collection_name)
                return wire.CollectionExistsResponse(result=wire.CollectionExists(exists=exists))
            case "Create":
                request = wire.CreateCollection.FromString(body)
                vectors = GrpcToRest.convert_vectors_config(request.vectors_config)
                self._local.create_collection(request.collection_name, vectors)
                self._made[request.collection_name] = request
                return wire.CollectionOperationResponse(result=True)
            case "Delete":
                self._local.delete_collection(wire.DeleteCollection.FromString(body).collection_name)
                return wire.CollectionOperationResponse(result=True)
            case "Get":
                name = wire.GetCollectionInfoRequest.FromString(body).collection_name
                self._local.get_collection(name)
                return _collection(self._made[name])
        raise AssertionError(f"{call} is not implemented")

    def _of_points(self, call: str, body: bytes) -> Any:
        match call:
            case "Get":
                return self._get(wire.GetPoints.FromString(body))
            case "Upsert":
                return self._upsert(wire.UpsertPoints.FromString(body))
            case "Delete":
                request = wire.DeletePoints.FromString(body)
                self._local.delete(request.collection_name, GrpcToRest.convert_points_selector(request.points))
                return _updated()
            case "Count":
                return self._count(wire.CountPoints.FromString(body))
            case "Scroll":
                return self._scroll(wire.ScrollPoints.FromString(body))
            case "QueryBatch":
                queries = wire.QueryBatchPoints.FromString(body).query_points
                return wire.QueryBatchResponse(result=[self._query(query) for query in queries])
            case "CreateFieldIndex":
                return _updated()
        raise AssertionError(f"{call} is not implemented")

    def _get(self, request: Any) -> Any:
        ids = [GrpcToRest.convert_point_id(point_id) for point_id in request.ids]
        records = self._local.retrieve(request.collection_name, ids, **_selectors(request))
        return wire.GetResponse(result=[RestToGrpc.convert_record(record) for record in records])

    def _upsert(self, request: Any) -> Any:
        points = [GrpcToRest.convert_point_struct(point) for point in request.points]
        self._local.upsert(request.collection_name, points, update_filter=_filter(request, "update_filter"))
        return _updated()

    def _count(self, request: Any) -> Any:
        count = self._local.count(request.collection_name, _filter(request, "filter"))
        return wire.CountResponse(result=wire.CountResult(count=count.count))

    def _scroll(self, request: Any) -> Any:
        offset = GrpcToRest.convert_point_id(request.offset) if request.HasField("offset") else None
        options = {"scroll_filter": _filter(request, "filter"), "limit": request.limit, "offset": offset}
        records, following = self._local.scroll(request.collection_name, **options, **_selectors(request))
        points = [RestToGrpc.convert_record(record) for record in records]
        if following is None:
            return wire.ScrollResponse(result=points)
        return wire.ScrollResponse(result=points, next_page_offset=RestToGrpc.convert_extended_point_id(following))

    def _query(self, request: Any) -> Any:
        query = GrpcToRest.convert_query(request.query)
        options = {"query_filter": _filter(request, "filter"), "limit": request.limit}
        answer = self._local.query_points(request.collection_name, query, **options, **_selectors(request))
        return wire.BatchResult(result=[RestToGrpc.convert_scored_point(point) for point in answer.points])


class _Every(grpc.GenericRpcHandler):
    def __init__(self, answer: Callable[[str, bytes, grpc.ServicerContext], bytes]) -> None:
        self._answer = answer

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = handler_call_details.method
        return grpc.unary_unary_rpc_method_handler(lambda body, context: self._answer(method, body, context))


def _filter(request: Any, name: str) -> Any:
    return GrpcToRest.convert_filter(getattr(request, name)) if request.HasField(name) else None


def _selectors(request: Any) -> dict[str, Any]:
    return {
        "with_payload": GrpcToRest.convert_with_payload_selector(request.with_payload),
        "with_vectors": GrpcToRest.convert_with_vectors_selector(request.with_vectors)
        if request.HasField("with_vectors")
        else False,
    }


def _updated() -> Any:
    return wire.PointsOperationResponse(result=wire.UpdateResult(operation_id=1, status=wire.UpdateStatus.Completed))


def _collection(made: Any) -> Any:
    """What a server tells of a collection that this request has made."""
    params = wire.CollectionParams(
        shard_number=made.shard_number or 1,
        replication_factor=made.replication_factor or 1,
        vectors_config=made.vectors_config,
    )
    config = wire.CollectionConfig(
        params=params,
        hnsw_config=wire.HnswConfigDiff(m=made.hnsw_config.m, ef_construct=100, full_scan_threshold=10_000),
        optimizer_config=wire.OptimizersConfigDiff(
            deleted_threshold=0.2, vacuum_min_vector_number=1000, default_segment_number=0, flush_interval_sec=5
        ),
        wal_config=wire.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0),
    )
    status, optimizers = wire.CollectionStatus.Green, wire.OptimizerStatus(ok=True)
    info = wire.CollectionInfo(status=status, optimizer_status=optimizers, segments_count=1, config=config)
    return wire.GetCollectionInfoResponse(result=info)


def main() -> None:
    with QdrantServer() as server:
        print(server.grpc_port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
