"""A stand-in for the retriever's gRPC service: it does what a test tells it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, NoReturn, Self

import grpc

from retriever import nearline_pb2 as pb
from tests.kit.certificates import Certificate

ANSWER: Final = pb.RetrieveResponse(generation="g", post_ids=["a"], scores=[0.5], tiers=[pb.TIER_HOT])
"""Some answer."""

_REQUESTS: Final = {
    "/nearline.v1.Retriever/Retrieve": pb.RetrieveRequest.FromString,
    "/nearline.v1.Retriever/RetrieveBatch": pb.RetrieveBatchRequest.FromString,
    "/nearline.v1.Retriever/Similar": pb.SimilarRequest.FromString,
    "/nearline.v1.Retriever/Vectors": pb.VectorsRequest.FromString,
    "/nearline.v1.Retriever/Status": pb.StatusRequest.FromString,
    "/grpc.health.v1.Health/Check": bytes,
}


class Received(NamedTuple):
    path: str
    request: Any
    metadata: dict[str, str]
    peer: str
    left_s: float
    """Of gRPC's own deadline."""


Answering = Callable[[Any, grpc.ServicerContext], Any]


class StandIn(grpc.GenericRpcHandler):  # type: ignore[misc]  # gRPC has no types
    """`answers` are given one after the other, the last one again and again: messages, bytes, or functions that make
    one or abort the call."""

    def __init__(self, files: Certificate | None = None, port: int = 0) -> None:
        self.received: list[Received] = []
        self.answers: list[Any] = [pb.RetrieveResponse(generation="g")]
        self._server = grpc.server(ThreadPoolExecutor(4), handlers=[self])
        address = f"127.0.0.1:{port}"
        if files is None:
            port = self._server.add_insecure_port(address)
        else:
            pair = files.private_key_file.read_bytes(), files.certificate_file.read_bytes()
            port = self._server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        self.url = f"127.0.0.1:{port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    def answer(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.received.clear()

    def service(self, call: Any) -> Any:
        if call.method not in _REQUESTS:
            return None
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._handle(call.method, request, context), _REQUESTS[call.method], _serialized
        )

    def _handle(self, path: str, request: Any, context: Any) -> Any:
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        self.received.append(Received(path, request, metadata, context.peer(), context.time_remaining()))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer(request, context) if callable(answer) else answer


def _serialized(message: Any) -> bytes:
    return message if isinstance(message, bytes) else bytes(message.SerializeToString())


def aborting(status: str, sentence: str = "a sentence", **trailing: str) -> Answering:
    """Ends the call with this status; the names of trailing metadata with _ for -."""

    def abort(_: Any, context: grpc.ServicerContext) -> NoReturn:
        context.set_trailing_metadata(tuple((name.replace("_", "-"), value) for name, value in trailing.items()))
        context.abort(grpc.StatusCode[status], sentence)
        raise AssertionError("abort raises")

    return abort
