"""A Qdrant server that can be told to fail, in this process, on a real port.

It plays the few answers that the cold tier needs. Where NEARLINE_TEST_QDRANT_URL names a real server, it only stands in
front of that one and hands on what it is asked.
"""

import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, Final, Self
from urllib.parse import urlsplit

import grpc
from qdrant_client import grpc as wire

from tests.certificates import Certificate
from tests.indexer.kit import DIMENSION

REAL: Final = "NEARLINE_TEST_QDRANT_URL"
HOST: Final = "127.0.0.1"
KEY: Final = "a-key-of-qdrant-that-nobody-may-see"

Fault = Callable[["QdrantServer", grpc.ServicerContext], None]
"""What happens instead of an answer, if it does not return."""


class QdrantServer:
    """Use it as a context. Every call must carry KEY."""

    def __init__(self, certificate: Certificate | None = None) -> None:
        self._credentials = certificate and grpc.ssl_server_credentials(
            [(certificate.private_key_file.read_bytes(), certificate.certificate_file.read_bytes())]
        )
        self._upstream = _upstream()
        self._stopped = Event()
        self.faults: list[tuple[str, Fault]] = []
        """The next one waits for a call of that name; the others for it."""
        self.points: dict[str, dict[str, Any]] = {}
        """Of each collection, by id."""
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.grpc_port: int = free.getsockname()[1]

    @property
    def url(self) -> str:
        return f"{'https' if self._credentials else 'http'}://{HOST}:1"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._upstream is not None:
            self._upstream.close()

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
        """Cuts off what is being answered."""
        self._stopped.set()
        self._server.stop(None).wait(10)

    def cut(self) -> None:
        """As `stop`, from within an answer."""
        self._server.stop(None)

    def wait(self, seconds: float) -> None:
        self._stopped.wait(seconds)

    def _answer(self, method: str, body: bytes, context: grpc.ServicerContext) -> bytes:
        if ("api-key", KEY) not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Must provide an API key or an Authorization bearer token")
        name = method.removeprefix("/qdrant.")
        if self.faults and self.faults[0][0] == name:
            self.faults.pop(0)[1](self, context)
        if self._upstream is not None:
            return bytes(self._upstream.unary_unary(method)(body, timeout=10))
        return bytes(self._play(name, body).SerializeToString())

    def _play(self, name: str, body: bytes) -> Any:
        match name:
            case "Collections/CollectionExists":
                return wire.CollectionExistsResponse(result=wire.CollectionExists(exists=True))
            case "Collections/Get":
                return _collection()
            case "Points/Get":
                asked = wire.GetPoints.FromString(body)
                held = self.points.get(asked.collection_name, {})
                points = [held[one.uuid] for one in asked.ids if one.uuid in held]
                return wire.GetResponse(result=[_with(point, asked.with_payload) for point in points])
            case "Points/Upsert":
                sent = wire.UpsertPoints.FromString(body)
                for point in sent.points:
                    kept = wire.RetrievedPoint(id=point.id, payload=point.payload)
                    self.points.setdefault(sent.collection_name, {})[point.id.uuid] = kept
                return _updated()
            case "Points/CreateFieldIndex":
                return _updated()
            case "Points/Count":
                counted = self.points.get(wire.CountPoints.FromString(body).collection_name, {})
                return wire.CountResponse(result=wire.CountResult(count=len(counted)))
        raise AssertionError(f"{name} is not played")


class _Every(grpc.GenericRpcHandler):
    def __init__(self, answer: Callable[[str, bytes, grpc.ServicerContext], bytes]) -> None:
        self._answer = answer

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = handler_call_details.method
        return grpc.unary_unary_rpc_method_handler(lambda body, context: self._answer(method, body, context))


def _with(point: Any, wanted: Any) -> Any:
    fields = set(wanted.include.fields) or set(point.payload)
    return wire.RetrievedPoint(id=point.id, payload={name: point.payload[name] for name in fields})


def _updated() -> Any:
    return wire.PointsOperationResponse(result=wire.UpdateResult(operation_id=1, status=wire.UpdateStatus.Completed))


def _collection() -> Any:
    vectors = wire.VectorsConfig(params=wire.VectorParams(size=DIMENSION, distance=wire.Distance.Dot))
    params = wire.CollectionParams(shard_number=1, vectors_config=vectors)
    config = wire.CollectionConfig(
        params=params,
        hnsw_config=wire.HnswConfigDiff(m=0, ef_construct=100, full_scan_threshold=10_000),
        optimizer_config=wire.OptimizersConfigDiff(
            deleted_threshold=0.2, vacuum_min_vector_number=1000, default_segment_number=0, flush_interval_sec=5
        ),
        wal_config=wire.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0),
    )
    status, optimizers = wire.CollectionStatus.Green, wire.OptimizerStatus(ok=True)
    found = wire.CollectionInfo(status=status, optimizer_status=optimizers, segments_count=1, config=config)
    return wire.GetCollectionInfoResponse(result=found)


def _upstream() -> grpc.Channel | None:
    """The real server's gRPC port is the usual one."""
    url = os.environ.get(REAL)
    return grpc.insecure_channel(f"{urlsplit(url).hostname}:6334") if url else None
