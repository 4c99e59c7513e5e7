"""Messages that arrive slowly, in halves or not at all: what they may cost, and that others go on."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import grpc
import pytest

from retriever.grpc import arrivals
from retriever.grpc.server import MAX_MESSAGE_BYTES
from tests.kit.raw_clients import Gate
from tests.kit.raw_grpc import RawCall
from tests.kit.retrievers import RetrieverSetup, Served, asking_member, scored_post
from tests.kit.waiting import until
from tests.kit.ways_in import GrpcWay, Outcome

RETRIEVE = "/nearline.v1.Retriever/Retrieve"
CHECK = "/grpc.health.v1.Health/Check"
REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
LONG_MS = 30_000


def new_retriever() -> RetrieverSetup:
    retriever = RetrieverSetup(warm=False)
    retriever.in_cold(asking_member("m"), scored_post("a"))
    return retriever


@pytest.fixture
def served() -> Iterator[Served]:
    with Served(new_retriever(), in_flight=1, queue=0) as served:
        yield served


@pytest.fixture
def way(served: Served) -> Iterator[GrpcWay]:
    way = GrpcWay(served)
    yield way
    way.close()


class Slow:
    """A call whose message does not come until it is told to."""

    def __init__(self, channel: grpc.Channel, method: str = RETRIEVE) -> None:
        self._messages: SimpleQueue[bytes | None] = SimpleQueue()
        self._call: Any = channel.stream_unary(method).future(iter(self._messages.get, None), timeout=30)

    def send(self, message: bytes | None) -> None:
        """None: there is no further message."""
        self._messages.put(message)

    def outcome(self) -> Outcome:
        error = self._call.exception()
        self.send(None)
        if error is None:
            return Outcome("ok", "", {}, {}, None)
        trailing = dict(error.trailing_metadata())
        retry_after_ms = trailing.get("retry-after-ms")
        return Outcome(
            trailing.get("nearline-code", ""),
            error.details(),
            {"status": error.code()},
            trailing,
            None if retry_after_ms is None else int(retry_after_ms),
        )


@pytest.fixture
def channel(served: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(served.grpc) as channel:
        yield channel


def is_answered(way: GrpcWay) -> bool:
    return way.ask("Retrieve", member_id="m", timeout_ms=LONG_MS).body.get("post_ids") == ["a"]


@pytest.fixture
def arriving(monkeypatch: pytest.MonkeyPatch) -> set[Any]:
    """The calls whose messages are waited for."""
    calls: set[Any] = set()
    read = arrivals.Arrivals.read

    async def noted(self: arrivals.Arrivals, context: Any) -> bytes:
        calls.add(context)
        try:
            return await read(self, context)
        finally:
            calls.discard(context)

    monkeypatch.setattr(arrivals.Arrivals, "read", noted)
    return calls


@pytest.mark.parametrize("method", [RETRIEVE, CHECK])
def test_a_message_that_does_not_come(
    channel: grpc.Channel, way: GrpcWay, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "WITHIN_S", 0.2)
    outcome = Slow(channel, method).outcome()
    assert (outcome.code, outcome.detail) == ("too_slow", "the request did not arrive in time")
    assert outcome.body["status"] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert is_answered(way)


def test_a_message_that_comes_late_is_answered(channel: grpc.Channel, arriving: set[Any]) -> None:
    slow = Slow(channel)
    until(lambda: len(arriving) == 1, "the call to wait for its message")
    slow.send(b"\x0a\x01m\x38\xb0\xea\x01")  # member_id "m", timeout_ms 30,000
    assert slow.outcome().code == "ok"


def test_half_a_message_is_hung_up_on(served: Served, way: GrpcWay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "WITHIN_S", 0.2)
    with RawCall(served, RETRIEVE) as call:
        call.say_half(MAX_MESSAGE_BYTES)
        call.hear_until(b"too_slow")
    assert is_answered(way)


@pytest.mark.parametrize("method", [RETRIEVE, CHECK])
def test_a_call_without_a_message(channel: grpc.Channel, method: str) -> None:
    slow = Slow(channel, method)
    slow.send(None)
    outcome = slow.outcome()
    assert (outcome.code, outcome.detail) == ("bad_body", "the call ended without a message")


def test_reflection_ends_with_a_message_that_does_not_come(
    channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "WITHIN_S", 0.2)
    messages: SimpleQueue[bytes | None] = SimpleQueue()
    answers = channel.stream_stream(REFLECT)(iter(messages.get, None), timeout=30)
    assert list(answers) == []
    messages.put(None)


def test_so_many_arrive_at_the_same_time(
    channel: grpc.Channel, way: GrpcWay, arriving: set[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "AT_ONCE", 2)
    monkeypatch.setattr(arrivals, "SLOW_S", 3600.0)
    slow = [Slow(channel, method) for method in (RETRIEVE, CHECK)]
    until(lambda: len(arriving) == 2, "both to wait for their messages")
    for method in (RETRIEVE, CHECK):
        outcome = Slow(channel, method).outcome()
        assert (outcome.code, outcome.retry_after_ms) == ("busy", 3_600_000)
        assert outcome.detail == "too many requests arrive at the same time; try again"
    for call in slow:
        call.send(b"")
    assert [call.outcome().code for call in slow] == ["bad_field", "ok"]
    assert is_answered(way)


def test_the_slowest_makes_room(
    channel: grpc.Channel, way: GrpcWay, arriving: set[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "AT_ONCE", 2)
    monkeypatch.setattr(arrivals, "SLOW_S", 0.0)
    first = Slow(channel)
    until(lambda: len(arriving) == 1, "the first one to wait for its message")
    second = Slow(channel)
    until(lambda: len(arriving) == 2, "the second one too")
    assert is_answered(way)
    assert first.outcome().code == "too_slow"
    second.send(b"")
    assert second.outcome().code == "bad_field"


def test_without_a_key_nothing_is_read() -> None:
    with Served(new_retriever(), api_key="key") as served, grpc.insecure_channel(served.grpc) as channel:
        assert Slow(channel).outcome().code == "unauthenticated"


def test_a_full_house_refuses_unread(
    served: Served, channel: grpc.Channel, way: GrpcWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(served.retriever.under_test.answer)
    monkeypatch.setattr(served.retriever.under_test, "answer", gate)
    with ThreadPoolExecutor(1) as pool:
        inside = pool.submit(way.ask, "Retrieve", member_id="m", timeout_ms=LONG_MS)
        gate.wait_for(1)
        outcome = Slow(channel).outcome()
        assert (outcome.code, outcome.body["status"]) == ("busy", grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert outcome.retry_after_ms is not None
        assert "x-request-id" in outcome.headers
        gate.open()
        assert inside.result().code == "ok"


def test_twenty_messages_that_are_too_large_disturb_nobody(served: Served, way: GrpcWay) -> None:
    """Each is refused as soon as its length has come."""
    for _ in range(20):
        with RawCall(served, RETRIEVE) as call:
            call.say_half(100 * 1024 * 1024)
            assert b"larger than max" in call.hear_until(b"8388608")
    assert is_answered(way)
