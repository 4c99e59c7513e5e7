"""What a client does when a call fails: which error it raises, and when it tries again."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from nearline import (
    Client,
    DeadlineExceeded,
    NotAllowed,
    RequestRefused,
    RetrieverBusy,
    RetrieverError,
    RetrieverUnavailable,
)
from tests.kit.grpc_stand_in import ANSWER, StandIn, aborting


def test_a_second_attempt_has_only_the_time_that_is_left(client: Client, stand_in: StandIn) -> None:
    stand_in.answer(aborting("RESOURCE_EXHAUSTED", retry_after_ms="500", nearline_code="busy"), ANSWER)
    client.retrieve(member_id="m", timeout_s=10.0)
    first, second = (received.request.timeout_ms for received in stand_in.received)
    assert second <= first - 500


@pytest.mark.parametrize(
    ("status", "trailing", "error"),
    [
        ("INVALID_ARGUMENT", {"nearline_code": "bad_field"}, RequestRefused),
        ("NOT_FOUND", {"nearline_code": "unknown_generation"}, RequestRefused),
        ("UNAUTHENTICATED", {"nearline_code": "not_allowed"}, NotAllowed),
        ("PERMISSION_DENIED", {}, NotAllowed),
        ("RESOURCE_EXHAUSTED", {}, RequestRefused),
        ("RESOURCE_EXHAUSTED", {"nearline_code": "busy"}, RetrieverBusy),
        ("DEADLINE_EXCEEDED", {}, DeadlineExceeded),
        ("UNIMPLEMENTED", {}, RetrieverUnavailable),
        ("INTERNAL", {"nearline_code": "internal"}, RetrieverUnavailable),
        ("UNKNOWN", {}, RetrieverUnavailable),
    ],
)
def test_an_error_that_does_not_pass_is_raised_at_once(
    client: Client, stand_in: StandIn, status: str, trailing: dict[str, str], error: type[RetrieverError]
) -> None:
    stand_in.answer(aborting(status, "k: give 1 to 2048", x_request_id="r", **trailing))
    with pytest.raises(RetrieverError) as caught:
        client.retrieve(member_id="m")
    assert type(caught.value) is error
    assert (caught.value.code, caught.value.request_id) == (trailing.get("nearline_code"), "r")
    if issubclass(error, RequestRefused) or trailing:
        assert str(caught.value) == "k: give 1 to 2048"
    assert caught.value.__cause__ is not None
    assert len(stand_in.received) == 1


def test_what_passes_is_tried_again(client: Client, stand_in: StandIn) -> None:
    stand_in.answer(aborting("UNAVAILABLE"), aborting("UNAVAILABLE"), ANSWER)
    assert client.retrieve(member_id="m").post_ids == ("a",)
    assert len(stand_in.received) == 3


def test_a_retriever_that_stays_away_is_not_asked_for_ever(client: Client, stand_in: StandIn) -> None:
    stand_in.answer(aborting("UNAVAILABLE", "the tier is down", nearline_code="unavailable"))
    with pytest.raises(RetrieverUnavailable, match=r"^the tier is down$") as caught:
        client.retrieve(member_id="m")
    assert caught.value.code == "unavailable"
    assert len(stand_in.received) == 4


def test_it_comes_back_when_the_retriever_says(client: Client, stand_in: StandIn) -> None:
    times_s: list[float] = []

    def busy(request: Any, context: Any) -> Any:
        times_s.append(time.monotonic())
        return aborting("RESOURCE_EXHAUSTED", retry_after_ms="120", nearline_code="busy")(request, context)

    def free(_: Any, __: Any) -> Any:
        times_s.append(time.monotonic())
        return ANSWER

    stand_in.answer(busy, free)
    assert client.retrieve(member_id="m").post_ids == ("a",)
    assert times_s[1] - times_s[0] >= 0.12


def test_a_wait_that_is_longer_than_the_deadline_is_left_to_the_caller(client: Client, stand_in: StandIn) -> None:
    stand_in.answer(aborting("RESOURCE_EXHAUSTED", retry_after_ms="30000", nearline_code="busy"))
    began_s = time.monotonic()
    with pytest.raises(RetrieverBusy) as caught:
        client.retrieve(member_id="m")
    assert time.monotonic() - began_s < 20.0
    assert (caught.value.retry_after_s, caught.value.code) == (30.0, "busy")


@pytest.mark.parametrize("nonsense", ["", "soon", "-1", "1.5", "9" * 5000])
def test_a_time_to_come_back_that_is_no_number_is_not_waited_for(
    client: Client, stand_in: StandIn, nonsense: str
) -> None:
    stand_in.answer(aborting("RESOURCE_EXHAUSTED", retry_after_ms=nonsense, nearline_code="busy"))
    with pytest.raises(RetrieverBusy) as caught:
        client.retrieve(member_id="m")
    assert caught.value.retry_after_s is None
    assert len(stand_in.received) == 1


def test_calls_that_keep_failing_use_up_the_budget_of_the_client(client: Client, stand_in: StandIn) -> None:
    stand_in.answer(aborting("UNAVAILABLE"))
    for _ in range(20):
        with pytest.raises(RetrieverUnavailable):
            client.retrieve(member_id="m")
    assert len(stand_in.received) <= 20 + 10 + 2


def test_an_answer_that_does_not_come_is_given_up_at_the_deadline(client: Client, stand_in: StandIn) -> None:
    released = threading.Event()

    def hang(_: Any, __: Any) -> Any:
        released.wait(20.0)
        return ANSWER

    stand_in.answer(hang)
    try:
        began_s = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="did not answer in time"):
            client.retrieve(member_id="m", timeout_s=0.2)
        assert time.monotonic() - began_s < 10.0
    finally:
        released.set()
    assert len(stand_in.received) == 1, "a slow retriever gets no second question"


def test_nobody_there_is_one_sentence(make: type[Client], unused_url: str) -> None:
    words = f"the retriever at {unused_url} does not answer"
    with make(unused_url, timeout_s=20.0) as client, pytest.raises(RetrieverUnavailable, match=words):
        client.retrieve(member_id="m")


@pytest.fixture
def web_server() -> Iterator[str]:
    """A server that speaks HTTP/1.1, as the retriever does on its other port."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_port_of_another_service_is_an_outage(make: type[Client], web_server: str) -> None:
    with make(web_server) as client, pytest.raises(RetrieverUnavailable):
        client.retrieve(member_id="m", timeout_s=1.0)
