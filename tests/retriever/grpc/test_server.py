"""What only gRPC has: messages as bytes, reflection, keys as metadata, TLS, and clients that cost too much."""

import asyncio
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pydantic import SecretStr

from retriever import nearline_pb2 as pb
from retriever.grpc import server
from retriever.grpc.calls import STATUS_CALLS, refuse
from retriever.service.problems import Trouble
from retriever.service.trace import Trace
from schemas.api import ProblemCode, ProcessStatus, StageStatus
from tests.kit.certificates import certificate
from tests.kit.raw_clients import Gate
from tests.kit.raw_grpc import RawCall
from tests.kit.retrievers import RetrieverSetup, Served, asking_member, scored_post
from tests.kit.waiting import until
from tests.kit.ways_in import GrpcWay, grpc_message

KEY = SecretStr("a-secret")
SERVING = health_pb2.HealthCheckResponse.SERVING
LONG_MS = 30_000


def new_retriever() -> RetrieverSetup:
    retriever = RetrieverSetup()
    retriever.in_cold(asking_member("m"), scored_post("a"))
    return retriever


@pytest.fixture
def served() -> Iterator[Served]:
    with Served(new_retriever()) as served:
        yield served


@pytest.fixture
def way(served: Served) -> Iterator[GrpcWay]:
    way = GrpcWay(served)
    yield way
    way.close()


def is_answered(way: GrpcWay) -> bool:
    return way.ask("Retrieve", member_id="m", timeout_ms=LONG_MS).body.get("post_ids") == ["a"]


class TestBodies:
    @pytest.mark.parametrize("body", [b"\xff", b"\x0a\x05abc", b"\x0a\x01\xff"])
    def test_rubbish(self, way: GrpcWay, body: bytes) -> None:
        outcome = way.send("Retrieve", body)
        assert (outcome.code, outcome.detail) == ("bad_body", "the body is no RetrieveRequest")
        assert is_answered(way)

    @pytest.mark.parametrize(
        ("call", "body", "sentence"),
        [
            ("Retrieve", b"\xa2\x06\x01x", "field number 100: is not known to this server"),
            ("Retrieve", b"\x72\x03\x9a\x06\x00", "only_authors.field number 99: is not known to this server"),
            ("RetrieveBatch", b"\x0a\x04\xa2\x06\x01x", "queries.0.field number 100: is not known to this server"),
            ("Similar", b"\xa2\x06\x01x", "field number 100: is not known to this server"),
            ("Vectors", b"\xa2\x06\x01x", "field number 100: is not known to this server"),
        ],
    )
    def test_an_unknown_field(self, way: GrpcWay, call: str, body: bytes, sentence: str) -> None:
        """A newer client asks for something that this server cannot do."""
        fields: dict[str, Any] = {"member_id": "m"} if call == "Retrieve" else {}
        outcome = way.send(call, grpc_message(call, fields).SerializeToString() + body)
        assert (outcome.code, outcome.detail) == ("bad_field", sentence)

    @pytest.mark.parametrize("micros", [2**62, -(2**62)])
    def test_a_time_that_is_none(self, way: GrpcWay, micros: int) -> None:
        body = pb.RetrieveRequest(text="t", created_before_us=micros).SerializeToString()
        outcome = way.send("Retrieve", body)
        assert (outcome.code, outcome.detail) == ("bad_field", "created_before_us: is not between the years 1 and 9999")

    def test_a_hundred_megabytes(self, way: GrpcWay) -> None:
        body = pb.RetrieveRequest(text="x" * 100 * 1024 * 1024).SerializeToString()
        outcome = way.send("Retrieve", body)
        assert outcome.body["status"] is grpc.StatusCode.RESOURCE_EXHAUSTED
        # gRPC refuses it as soon as its length has come, and cannot be told to give our code.
        assert outcome.code == ""
        assert f"larger than max ({len(body)} vs. {server.MAX_MESSAGE_BYTES})" in outcome.detail
        assert is_answered(way)

    @pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
    def test_a_hundred_megabytes_that_look_small(
        self, served: Served, way: GrpcWay, compression: grpc.Compression
    ) -> None:
        body = pb.RetrieveRequest(text="x" * 100 * 1024 * 1024).SerializeToString()
        with grpc.insecure_channel(served.grpc) as channel:
            call = channel.unary_unary("/nearline.v1.Retriever/Retrieve")
            with pytest.raises(grpc.RpcError) as refused:
                call(body, timeout=30, compression=compression)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in refused.value.details()
        assert is_answered(way)

    def test_the_largest_useful_request(self, way: GrpcWay) -> None:
        ids = [f"{number:0256}" for number in range(10_000)]
        lists = {"exclude_posts": ids, "exclude_authors": ids, "only_posts": [*ids[1:], "a"]}
        outcome = way.ask("Retrieve", text="t", timeout_ms=LONG_MS, **lists)
        assert (outcome.code, outcome.body["post_ids"]) == ("ok", ["a"])

    def test_a_call_that_there_is_not(self, served: Served) -> None:
        with grpc.insecure_channel(served.grpc) as channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/nearline.v1.Retriever/Nothing")(b"", timeout=20)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_status(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    status = served.retriever.status().model_copy(
        update={
            "processes": [ProcessStatus(name="serve", pid=None, restarts=2)],
            "stages": [
                StageStatus(stage="index", group="g", topic="t", lag=3, oldest_age_s=0.5, deleted_unread={1: 2})
            ],
            "dead_letters": 0,
        }
    )
    monkeypatch.setattr(served.retriever, "status", lambda: status)
    with Served(new_retriever()) as other, grpc.insecure_channel(other.grpc) as channel:
        monkeypatch.setattr(other.retriever, "broken_status", True)
        with pytest.raises(grpc.RpcError) as failed:
            channel.unary_unary("/nearline.v1.Retriever/Status")(b"", timeout=20)
        assert failed.value.code() is grpc.StatusCode.INTERNAL
        other.retriever.broken_status = False
        answer = pb.StatusResponse.FromString(channel.unary_unary("/nearline.v1.Retriever/Status")(b"", timeout=20))
    assert (answer.ready, answer.generation, answer.HasField("dead_letters")) == (True, "test-0", False)


def test_status_calls_count_until_they_end_also_if_their_clients_hang_up() -> None:
    """Otherwise a client with short deadlines would have the broker asked without end."""
    retriever = new_retriever()
    gate = retriever.status = Gate(retriever.status)  # type: ignore[method-assign]
    with Served(retriever) as served, grpc.insecure_channel(served.grpc) as channel:
        ask = channel.unary_unary("/nearline.v1.Retriever/Status")
        for _ in range(STATUS_CALLS):
            call = ask.future(b"", timeout=LONG_MS / 1000)
            gate.wait_for(1)
            call.cancel()
        with pytest.raises(grpc.RpcError) as refused:
            ask(b"", timeout=LONG_MS / 1000)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        gate.open()
        until(lambda: _is_told(ask), "the status")


def _is_told(ask: Any) -> bool:
    try:
        return bool(pb.StatusResponse.FromString(ask(b"", timeout=LONG_MS / 1000)).ready)
    except grpc.RpcError:
        return False


def _services(channel: grpc.Channel, metadata: list[tuple[str, Any]] | None = None) -> list[str]:
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
        asked, timeout=20, metadata=metadata
    )
    return [service.name for service in next(answers).list_services_response.service]


def test_reflection_names_the_services(served: Served) -> None:
    with grpc.insecure_channel(served.grpc) as channel:
        assert "nearline.v1.Retriever" in _services(channel)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Served]:
    with Served(new_retriever(), api_key=KEY) as served:
        yield served


class TestApiKey:
    @pytest.mark.parametrize("name", ["x-api-key", "authorization"])
    def test_the_key_opens_in_either_way(self, guarded: Served, name: str) -> None:
        key = KEY.get_secret_value()
        way = GrpcWay(guarded)
        sent = {name: f"bearer {key}" if name == "authorization" else key}
        assert way.ask("Retrieve", sent, member_id="m", timeout_ms=LONG_MS).code == "ok"
        way.close()

    def test_a_key_that_is_not_ascii_comes_as_bytes(self) -> None:
        """As metadata of gRPC may not hold it otherwise."""
        body = grpc_message("Retrieve", {"member_id": "m", "timeout_ms": LONG_MS}).SerializeToString()
        with Served(new_retriever(), api_key="\N{SNOWMAN}") as served, grpc.insecure_channel(served.grpc) as channel:
            call = channel.unary_unary("/nearline.v1.Retriever/Retrieve")
            assert call(body, timeout=20, metadata=[("x-api-key-bin", "\N{SNOWMAN}".encode())])
            with pytest.raises(grpc.RpcError):
                call(body, timeout=20, metadata=[("x-api-key-bin", b"wrong")])

    @pytest.mark.parametrize(
        "sent", [{}, {"x-api-key": "wrong"}, {"authorization": "Bearer wrong"}, {"authorization": "Basic x"}]
    )
    @pytest.mark.parametrize("call", ["Retrieve", "Status", "Nothing"])
    def test_without_it_nothing_is_told(self, guarded: Served, call: str, sent: dict[str, str]) -> None:
        way = GrpcWay(guarded)
        outcome = way.send(call, b"", sent)
        assert (outcome.code, outcome.body["status"]) == ("unauthenticated", grpc.StatusCode.UNAUTHENTICATED)
        assert "API key" in outcome.detail
        way.close()

    def test_reflection_needs_it_and_health_does_not(self, guarded: Served) -> None:
        with grpc.insecure_channel(guarded.grpc) as channel:
            with pytest.raises(grpc.RpcError) as refused:
                _services(channel)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert _services(channel, [("x-api-key", KEY.get_secret_value())])
            health = health_pb2_grpc.HealthStub(channel)
            assert health.Check(health_pb2.HealthCheckRequest(), timeout=20).status == SERVING


class TestTls:
    def test_it_has_the_certificate_of_https(self, tmp_path: Path) -> None:
        files = certificate(tmp_path, "127.0.0.1")
        trusted = grpc.ssl_channel_credentials(files.ca_file.read_bytes())
        with Served(new_retriever(), **files.settings()) as served:
            body = grpc_message("Retrieve", {"member_id": "m", "timeout_ms": LONG_MS}).SerializeToString()
            with grpc.secure_channel(served.grpc, trusted) as channel:
                answer = channel.unary_unary("/nearline.v1.Retriever/Retrieve")(body, timeout=20)
            assert pb.RetrieveResponse.FromString(answer).post_ids == ["a"]
            with grpc.insecure_channel(served.grpc) as channel, pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary("/nearline.v1.Retriever/Retrieve")(body, timeout=20)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE

    @pytest.mark.parametrize("said", [b"", b"\x16\x03\x01"])
    def test_a_handshake_that_does_not_end(self, tmp_path: Path, said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "HANDSHAKE_S", 0.5)
        with Served(new_retriever(), **certificate(tmp_path, "127.0.0.1").settings()) as served:
            _is_hung_up_on(served, said)


def _is_hung_up_on(served: Served, said: bytes) -> None:
    host, _, port = served.grpc.rpartition(":")
    with socket.create_connection((host, int(port)), 20) as silent:
        silent.sendall(said)
        while silent.recv(1000):
            pass


def test_one_who_does_not_greet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server greets at once, as HTTP/2 has it, and then waits for the client's greeting."""
    monkeypatch.setattr(server, "HANDSHAKE_S", 0.5)
    with Served(new_retriever()) as served:
        _is_hung_up_on(served, b"")


def test_a_connection_ends_with_what_was_left_open_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And calls on other connections, and later ones, go on."""
    monkeypatch.setattr(server, "AGE_S", 0.5)
    monkeypatch.setattr(server, "AGE_GRACE_S", 0.5)
    with Served(new_retriever()) as served, RawCall(served, "/grpc.health.v1.Health/Watch", window=0) as unread:
        way = GrpcWay(served)
        unread.say(b"")
        while unread.socket.recv(1000):
            assert is_answered(way)
        assert is_answered(way)
        way.close()


@pytest.fixture
def many_files() -> Iterator[None]:
    """This process has both ends of each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_two_thousand_idle_connections_to_each_port() -> None:
    with Served(new_retriever()) as served, ExitStack() as idle:
        for address in (served.grpc, served.url.removeprefix("http://")):
            host, _, port = address.rpartition(":")
            for _ in range(2000):
                idle.enter_context(socket.create_connection((host, int(port)), 20))
        way = GrpcWay(served)
        assert is_answered(way)
        way.close()


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those above the bound are closed, and the others go on."""
    monkeypatch.setattr(server, "max_connections", lambda: 3)
    with Served(new_retriever()) as served, ExitStack() as stack:
        way = GrpcWay(served)
        assert is_answered(way)
        host, _, port = served.grpc.rpartition(":")
        idle = [stack.enter_context(socket.create_connection((host, int(port)), 20)) for _ in range(6)]
        for connection in idle:
            connection.settimeout(0.5)

        def closed() -> int:
            number = 0
            for connection in idle:
                try:
                    while connection.recv(1000):
                        pass
                    number += 1
                except TimeoutError:
                    continue
                except ConnectionError:
                    number += 1
            return number

        until(lambda: closed() >= 3, "those above the bound to be closed")
        assert is_answered(way)
        way.close()


def test_a_refusal_of_a_client_that_has_gone_is_a_cancelled_call() -> None:
    """grpc fails to send it and would log that with a traceback, once for each such client of an overload."""

    class Gone:
        async def abort(self, *_: object) -> None:
            raise grpc.aio.InternalError("Failed execute_batch")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(refuse(Gone(), Trouble(ProblemCode.BUSY, "come again"), Trace("1", None)))
