"""The two ways into a retriever, asked with the same fields: over HTTP and over gRPC. What comes back has one form."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

import grpc
import httpx
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from retriever import nearline_pb2 as pb
from schemas.times import moment_of, to_micros
from tests.kit.retrievers import Served

PATHS: Final = {
    "Retrieve": "/v1/retrieve",
    "RetrieveBatch": "/v1/retrieve/batch",
    "Similar": "/v1/similar",
    "Vectors": "/v1/vectors",
}
REQUESTS: Final[dict[str, type[Message]]] = {name: getattr(pb, f"{name}Request") for name in (*PATHS, "Status")}
_COLUMNS: Final = ("author", "created_at", "revision", "language")


class Outcome(NamedTuple):
    code: str
    """`ok`, or the problem's code. Empty if the server did not say it."""
    detail: str
    body: dict[str, Any]
    """The answer's fields with the names and values of HTTP."""
    headers: dict[str, str]
    """Or trailing metadata."""
    retry_after_ms: int | None


class WayIn(Protocol):
    def ask(self, call: str, metadata: Mapping[str, str] | None = None, **fields: Any) -> Outcome: ...

    def close(self) -> None: ...


class HttpWay:
    def __init__(self, served: Served) -> None:
        self._client = httpx.Client(base_url=served.url, trust_env=False, timeout=30)

    def close(self) -> None:
        self._client.close()

    def ask(self, call: str, metadata: Mapping[str, str] | None = None, **fields: Any) -> Outcome:
        answer = self._client.post(PATHS[call], json=fields, headers=dict(metadata or {}))
        body, headers = answer.json(), dict(answer.headers)
        if answer.status_code == 200:
            return Outcome("ok", "", body, headers, None)
        assert answer.headers["content-type"] == "application/problem+json"
        assert body["status"] == answer.status_code
        return Outcome(body["code"], body["detail"], {}, headers, body.get("retry_after_ms"))


class GrpcWay:
    def __init__(self, served: Served) -> None:
        self._channel = grpc.insecure_channel(served.grpc, (("grpc.max_receive_message_length", -1),))

    def close(self) -> None:
        self._channel.close()

    def ask(self, call: str, metadata: Mapping[str, str] | None = None, **fields: Any) -> Outcome:
        return self.send(call, grpc_message(call, fields).SerializeToString(), metadata)

    def send(
        self, call: str, body: bytes, metadata: Mapping[str, str] | None = None, timeout_s: float = 30.0
    ) -> Outcome:
        """A body that need not be a message."""
        method = self._channel.unary_unary(f"/nearline.v1.Retriever/{call}")
        try:
            answer, done = method.with_call(body, timeout=timeout_s, metadata=list((metadata or {}).items()))
        except grpc.RpcError as error:
            trailing = dict(error.trailing_metadata() or ())
            retry_after = trailing.get("retry-after-ms")
            return Outcome(
                trailing.get("nearline-code", ""),
                error.details(),
                {"status": error.code()},
                trailing,
                None if retry_after is None else int(retry_after),
            )
        kind = getattr(pb, f"{'Retrieve' if call == 'Similar' else call}Response")
        return Outcome("ok", "", _as_http(kind.FromString(answer)), dict(done.trailing_metadata()), None)


def grpc_message(call: str, fields: Mapping[str, Any]) -> Message:
    """The request that says the same as these fields of JSON."""
    return REQUESTS[call](**dict(_as_grpc(name, value) for name, value in fields.items()))


def _as_grpc(name: str, value: Any) -> tuple[str, Any]:
    match name:
        case "created_after" | "created_before":
            return f"{name}_us", to_micros(moment_of(value))
        case "only_authors" | "only_posts":
            return name, pb.Ids(ids=value)
        case "columns":
            return name, [_COLUMNS.index(column) + 1 if column in _COLUMNS else 99 for column in value]
        case "queries":
            return name, [grpc_message("Retrieve", query) for query in value]
    return name, value


def _as_http(message: Message) -> dict[str, Any]:
    """With all columns as lists, also empty ones."""
    body = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    if "answers" in body:
        return {"answers": [_answer(answer) for answer in body["answers"]]}
    return _answer(body) if "tiers" in body else _vectors(body)


def _answer(body: dict[str, Any]) -> dict[str, Any]:
    body["tiers"] = [tier.removeprefix("TIER_").lower() for tier in body["tiers"]]
    body["revisions"] = [int(revision) for revision in body["revisions"]]
    body["created_at"] = [int(micros) for micros in body.pop("created_at_us")]
    return body


def _vectors(body: dict[str, Any]) -> dict[str, Any]:
    numbers, dimension = body["vectors"], body["dimension"]
    body["revisions"] = [int(revision) for revision in body["revisions"]]
    body["vectors"] = [numbers[start : start + dimension] for start in range(0, len(numbers), dimension)]
    return body
