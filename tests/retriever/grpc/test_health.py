"""The health service: it follows readiness, and who watches it cannot harm those who ask."""

from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from retriever.grpc import health, server
from retriever.reasons import Code, Reason
from tests.kit.raw_grpc import RawCall
from tests.kit.retrievers import RetrieverSetup, Served
from tests.kit.waiting import until

RETRIEVER = "nearline.v1.Retriever"
WATCH = "/grpc.health.v1.Health/Watch"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
BEHIND = Reason(Code.HOT_BEHIND, "behind")


@pytest.fixture
def served() -> Iterator[Served]:
    with Served(RetrieverSetup()) as served:
        yield served


@pytest.fixture
def stub(served: Served) -> Iterator[health_pb2_grpc.HealthStub]:
    with grpc.insecure_channel(served.grpc) as channel:
        yield health_pb2_grpc.HealthStub(channel)


def status(stub: health_pb2_grpc.HealthStub, name: str = RETRIEVER) -> int:
    return int(stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=20).status)


def watch(stub: health_pb2_grpc.HealthStub, name: str = RETRIEVER) -> Iterator[health_pb2.HealthCheckResponse]:
    return iter(stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=60))


def test_it_follows_readiness(served: Served, stub: health_pb2_grpc.HealthStub) -> None:
    assert [status(stub), status(stub, "")] == [SERVING, SERVING]
    served.retriever.feed_problem = BEHIND
    until(lambda: [status(stub), status(stub, "")] == [NOT_SERVING, NOT_SERVING], "health to say so")
    served.retriever.feed_problem = None
    until(lambda: status(stub) == SERVING, "health to be good again")


def test_who_watches_is_told_each_change(served: Served, stub: health_pb2_grpc.HealthStub) -> None:
    watched = watch(stub)
    assert next(watched).status == SERVING
    served.retriever.feed_problem = BEHIND
    assert next(watched).status == NOT_SERVING
    served.retriever.feed_problem = None
    assert next(watched).status == SERVING


def test_a_service_that_there_is_not(stub: health_pb2_grpc.HealthStub) -> None:
    with pytest.raises(grpc.RpcError) as unknown:
        status(stub, "another.Service")
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    assert next(watch(stub, "another.Service")).status == SERVICE_UNKNOWN


def test_a_body_that_is_none(served: Served) -> None:
    with grpc.insecure_channel(served.grpc) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/grpc.health.v1.Health/Check")(b"\xff", timeout=20)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert dict(refused.value.trailing_metadata())["nearline-code"] == "bad_body"


def test_one_who_watches_and_reads_nothing_keeps_nothing_from_the_others(
    served: Served, stub: health_pb2_grpc.HealthStub
) -> None:
    with RawCall(served, WATCH, window=0) as silent:
        silent.say(health_pb2.HealthCheckRequest(service=RETRIEVER).SerializeToString())
        watched = watch(stub)
        assert next(watched).status == SERVING
        served.retriever.feed_problem = BEHIND
        until(lambda: status(stub) == NOT_SERVING, "health to say so")
        assert next(watched).status == NOT_SERVING


def test_watchers_are_bounded(stub: health_pb2_grpc.HealthStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MAX_WATCHERS", 1)
    first = stub.Watch(health_pb2.HealthCheckRequest(), timeout=60)
    assert next(first).status == SERVING
    with pytest.raises(grpc.RpcError) as refused:
        next(watch(stub))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert dict(refused.value.trailing_metadata())["nearline-code"] == "busy"
    assert status(stub) == SERVING
    first.cancel()
    until(lambda: _may_watch(stub), "its place to be free")


def _may_watch(stub: health_pb2_grpc.HealthStub) -> bool:
    try:
        return next(watch(stub)).status == SERVING
    except grpc.RpcError:
        return False


def test_who_watches_does_not_hold_up_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "GRACE_S", 0.2)
    with Served(RetrieverSetup()) as served:
        channel = grpc.insecure_channel(served.grpc)
        watched = watch(health_pb2_grpc.HealthStub(channel))
        assert next(watched).status == SERVING
    assert next(watched).status == NOT_SERVING
    channel.close()
