"""Both clients against a stand-in for the retriever: what is sent, and what comes back."""

from typing import Any

import numpy as np
import pytest

import nearline
from nearline import (
    Client,
    Question,
    RequestRefused,
    Trace,
)
from retriever import nearline_pb2 as pb
from tests.kit.grpc_stand_in import ANSWER, StandIn


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


def test_the_retriever_is_told_to_answer_before_the_call_ends(client: Client, stand_in: StandIn) -> None:
    """Otherwise an answer that is partial because of its deadline would always come too late."""
    client.retrieve(member_id="m", timeout_s=10.0)
    received = stand_in.received[0]
    assert 9.0 < received.request.timeout_ms / 1000 <= 9.95
    assert received.left_s <= 11.0, "gRPC rounds its own deadline"


@pytest.mark.parametrize("timeout_s", [3600.0, 1e15])
def test_a_very_long_time_is_cut_to_what_the_retriever_takes(
    client: Client, stand_in: StandIn, timeout_s: float
) -> None:
    client.retrieve(member_id="m", timeout_s=timeout_s)
    assert stand_in.received[0].request.timeout_ms == 60_000


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


def test_the_package_names_what_it_exports() -> None:
    assert {"Client", "AsyncClient", "Question", "RetrieverError"} <= set(dir(nearline))
    with pytest.raises(AttributeError, match="has no attribute 'Kafka'"):
        nearline.Kafka  # noqa: B018
