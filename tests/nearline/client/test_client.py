"""Both clients against a stand-in for the retriever: what is sent, what comes back, and what happens when it fails."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearline
from nearline import (
    AsyncClient,
    BadCertificate,
    Client,
    DeadlineExceeded,
    NotAllowed,
    Question,
    RequestRefused,
    RetrieverBusy,
    RetrieverError,
    RetrieverUnavailable,
    Trace,
)
from retriever import nearline_pb2 as pb
from tests.kit.certificates import certificate
from tests.kit.grpc_stand_in import StandIn, aborting
from tests.kit.waiting import until

ANSWER = pb.RetrieveResponse(generation="g", post_ids=["a"], scores=[0.5], tiers=[pb.TIER_HOT])


def test_it_asks_everything(client: Client, stand_in: StandIn) -> None:
    stand_in.answer(ANSWER)
    assert client.retrieve(member_id="m", k=10).post_ids == ("a",)
    assert client.similar(["p"], k=3).post_ids == ("a",)
    stand_in.answers = [pb.RetrieveBatchResponse(answers=[ANSWER, pb.RetrieveResponse(authors=["x"])])]
    first, second = client.retrieve_batch([Question(member_id="m"), Question(text="t", columns=["author"])])
    assert (first.post_ids, first.authors, second.authors) == (("a",), None, ("x",))
    stand_in.answers = [pb.VectorsResponse(post_ids=["p"], revisions=[1], dimension=1, vectors=[1])]
    assert client.vectors(["p"], generation="g").posts == (("p", 1, (1.0,)),)
    stand_in.answers = [pb.StatusResponse(generation="g")]
    assert client.status().generation == "g"
    methods = ["Retrieve", "Similar", "RetrieveBatch", "Vectors", "Status"]
    assert [received.path.rpartition("/")[2] for received in stand_in.received] == methods
    sent = [received.request for received in stand_in.received]
    assert (sent[0].member_id, sent[0].k, sent[1].post_ids, sent[1].k) == ("m", 10, ["p"], 3)
    assert [query.member_id or query.text for query in sent[2].queries] == ["m", "t"]
    assert (sent[3].post_ids, sent[3].generation) == (["p"], "g")


def test_a_numpy_array_is_a_vector(client: Client, stand_in: StandIn) -> None:
    client.retrieve(vector=np.array([0.6, 0.8], np.float32), generation="g")
    assert stand_in.received[0].request.vector == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize(("answer", "ready"), [(b"\x08\x01", True), (b"\x08\x02", False), (b"", False)])
def test_ready_is_what_the_health_service_says(client: Client, stand_in: StandIn, answer: bytes, ready: bool) -> None:
    stand_in.answer(answer)
    assert client.ready(timeout_s=20.0) is ready


def test_nobody_there_is_not_ready(make: type[Client], unused_url: str) -> None:
    with make(unused_url) as client:
        assert client.ready(timeout_s=0.1) is False


@pytest.fixture
def unused_url() -> str:
    with StandIn() as gone:
        pass
    return gone.url


def test_the_retriever_is_told_to_answer_before_the_call_ends(client: Client, stand_in: StandIn) -> None:
    """Otherwise an answer that is partial because of its deadline would always come too late."""
    client.retrieve(member_id="m", timeout_s=10.0)
    received = stand_in.received[0]
    assert 9.0 < received.request.timeout_ms / 1000 <= 9.95
    assert received.left_s <= 11.0, "gRPC rounds its own deadline"


def test_a_very_long_time_is_cut_to_what_the_retriever_takes(client: Client, stand_in: StandIn) -> None:
    client.retrieve(member_id="m", timeout_s=3600.0)
    assert stand_in.received[0].request.timeout_ms == 60_000


def test_a_second_attempt_has_only_the_time_that_is_left(client: Client, stand_in: StandIn) -> None:
    stand_in.answer(aborting("RESOURCE_EXHAUSTED", retry_after_ms="500", nearline_code="busy"), ANSWER)
    client.retrieve(member_id="m", timeout_s=10.0)
    first, second = (received.request.timeout_ms for received in stand_in.received)
    assert second <= first - 500


def test_the_metadata_carries_key_and_trace_and_the_answer_an_id(make: type[Client], stand_in: StandIn) -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    def answer(_: Any, context: Any) -> Any:
        context.send_initial_metadata((("x-request-id", "r-1"),))
        return ANSWER

    stand_in.answer(answer)
    with make(stand_in.url, api_key="secret", timeout_s=20.0) as client:
        found = client.retrieve(member_id="m", trace=Trace("r-1", traceparent))
    assert found.request_id == "r-1"
    metadata = stand_in.received[0].metadata
    assert (metadata["x-api-key"], metadata["x-request-id"], metadata["traceparent"]) == ("secret", "r-1", traceparent)


def test_the_request_id_may_also_come_at_the_end(client: Client, stand_in: StandIn) -> None:
    def answer(_: Any, context: Any) -> Any:
        context.set_trailing_metadata((("x-request-id", "r-2"),))
        return ANSWER

    stand_in.answer(answer)
    assert client.retrieve(member_id="m").request_id == "r-2"


def test_calls_take_the_connections_in_turn(make: type[Client], stand_in: StandIn) -> None:
    with make(stand_in.url, timeout_s=20.0, connections=3) as client:
        for _ in range(6):
            client.retrieve(member_id="m")
    peers = [received.peer for received in stand_in.received]
    assert len(set(peers)) == 3
    assert peers[:3] == peers[3:]


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


def test_a_retriever_that_comes_back_is_found_again(make: type[Client], unused_url: str) -> None:
    with make(unused_url, connections=1) as client:
        assert client.ready(timeout_s=0.1) is False
        with StandIn(port=int(unused_url.rpartition(":")[2])) as stand_in:
            stand_in.answer(b"\x08\x01")
            until(lambda: client.ready(timeout_s=0.2), "the client to connect again")


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


def test_an_answer_of_64_full_columns_fits(client: Client, stand_in: StandIn) -> None:
    """The largest answer there is; gRPC itself takes 4 MB unless it is told otherwise."""
    ids = [f"{number:0256}" for number in range(2048)]
    stand_in.answer(pb.RetrieveBatchResponse(answers=[pb.RetrieveResponse(post_ids=ids)] * 64))
    answers = client.retrieve_batch([Question(member_id="m")] * 64)
    assert {answer.post_ids for answer in answers} == {tuple(ids)}


def test_tls_is_believed_only_with_the_authority(make: type[Client], secure: tuple[StandIn, Path]) -> None:
    stand_in, ca_file = secure
    stand_in.answer(ANSWER)
    with make(f"https://{stand_in.url}", ca_file=ca_file, timeout_s=20.0) as client:
        assert client.retrieve(member_id="m").post_ids == ("a",)
    for url in (f"https://{stand_in.url}", stand_in.url):
        with make(url) as client, pytest.raises(RetrieverUnavailable):
            client.retrieve(member_id="m", timeout_s=1.0)
    assert len(stand_in.received) == 1


def test_a_certificate_of_another_name_is_believed_if_the_name_is_given(make: type[Client], tmp_path: Path) -> None:
    """As behind a port that is forwarded. The certificate itself may stand for its authority."""
    files = certificate(tmp_path, "retriever.example")
    with StandIn(files) as stand_in:
        stand_in.answer(ANSWER)
        url = f"https://{stand_in.url}"
        with make(url, ca_file=files.certificate_file, tls_name="retriever.example", timeout_s=20.0) as client:
            assert client.retrieve(member_id="m").post_ids == ("a",)
        for name in (None, "other.example"):
            with make(url, ca_file=files.ca_file, tls_name=name) as client, pytest.raises(RetrieverUnavailable):
                client.retrieve(member_id="m", timeout_s=1.0)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_ca_file_that_holds_none_is_named(make: type[Client], tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadCertificate, match=f"ca_file: {file}"):
        make("https://localhost:1", ca_file=file)


@pytest.mark.parametrize(
    "url", ["", "ftp://a:1", "http://", "https://", "localhost", "a:1/b", " localhost:1", "a://b://c"]
)
def test_an_address_that_is_none_is_named(make: type[Client], url: str) -> None:
    with pytest.raises(RequestRefused, match="is not the address of a retriever"):
        make(url)


@pytest.mark.parametrize("prefix", ["", "http://"])
def test_an_address_may_be_written_as_a_url(make: type[Client], stand_in: StandIn, prefix: str) -> None:
    with make(f"{prefix}{stand_in.url}/", timeout_s=20.0) as client:
        assert client.retrieve(member_id="m").generation == "g"


@pytest.mark.parametrize("key", ["", "top-secret\n", "top-\rsecret", "top-secret\x00"])
def test_a_key_that_cannot_be_sent_is_not_printed(make: type[Client], key: str) -> None:
    with pytest.raises(NotAllowed, match="API key") as caught:
        make("localhost:1", api_key=key)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_deadline_that_is_none_is_refused(client: Client, stand_in: StandIn, timeout_s: float) -> None:
    with pytest.raises(RequestRefused, match="timeout_s: give a number of seconds above 0"):
        client.retrieve(member_id="m", timeout_s=timeout_s)
    assert stand_in.received == []


def test_a_trace_that_cannot_be_sent_is_refused(client: Client) -> None:
    with pytest.raises(RequestRefused, match="request_id: give printable ASCII"):
        client.retrieve(member_id="m", trace=Trace(request_id="ü"))


def test_a_field_that_no_question_has_is_a_mistake_of_the_program(client: Client) -> None:
    with pytest.raises(TypeError, match="members_id"):
        client.retrieve(members_id="m")  # type: ignore[call-arg]


def test_threads_share_a_client(stand_in: StandIn) -> None:
    def answer(request: Any, _: Any) -> Any:
        return pb.RetrieveResponse(generation=request.member_id)

    stand_in.answer(answer)
    names = [f"m{number}" for number in range(200)]
    with Client(stand_in.url, timeout_s=20.0) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda name: client.retrieve(member_id=name), names))
    assert [answer.generation for answer in answers] == names


def test_coroutines_share_a_client_and_one_that_is_cancelled_disturbs_no_other(stand_in: StandIn) -> None:
    released = threading.Event()
    ended = threading.Event()

    def answer(request: Any, context: Any) -> Any:
        if request.member_id == "slow":
            context.add_callback(ended.set)
            released.wait(20.0)
        return pb.RetrieveResponse(generation=request.member_id)

    async def ask() -> list[str]:
        async with AsyncClient(stand_in.url, timeout_s=20.0) as client:
            slow = asyncio.create_task(client.retrieve(member_id="slow"))
            quick = [client.retrieve(member_id=f"m{number}") for number in range(20)]
            answers = await asyncio.gather(*quick)
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
            await asyncio.to_thread(until, ended.is_set, "the call to be cancelled in the retriever")
            return [answer.generation for answer in answers]

    stand_in.answer(answer)
    try:
        assert asyncio.run(ask()) == [f"m{number}" for number in range(20)]
    finally:
        released.set()


def test_the_package_names_what_it_exports() -> None:
    assert {"Client", "AsyncClient", "Question", "RetrieverError"} <= set(dir(nearline))
    with pytest.raises(AttributeError, match="has no attribute 'Kafka'"):
        nearline.Kafka  # noqa: B018
