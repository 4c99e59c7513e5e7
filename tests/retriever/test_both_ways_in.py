"""HTTP and gRPC give the same answers to the same questions, and refuse the same ones with the same sentences."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import numpy as np
import pytest
import structlog
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from retriever.answer.question import Question
from retriever.reasons import Code, Reason
from retriever.service.question_queue import QuestionQueue
from schemas.times import to_micros
from tests.kit.data.embeddings import DIMENSION, GENERATION
from tests.kit.raw_clients import Gate
from tests.kit.retrievers import QUERY, RetrieverSetup, Served, asking_member, scored_post
from tests.kit.waiting import until
from tests.kit.ways_in import GrpcWay, HttpWay, WayIn, grpc_message

VECTOR = [float(number) for number in QUERY]
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
LONG_MS = 30_000


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    retriever = RetrieverSetup()
    retriever.in_cold(
        asking_member("m", acted=["a"]),
        scored_post("a", 0.9, author="x", revision=3),
        scored_post("c", 0.7, author="y", language="de", age_s=7200.0),
        scored_post("d", 0.6, author="m"),
    )
    retriever.in_hot(scored_post("b", 0.8, author="y", language=None))
    with Served(retriever, in_flight=2, queue=1) as served:
        yield served


@pytest.fixture(params=[HttpWay, GrpcWay])
def way(request: pytest.FixtureRequest, served: Served) -> Iterator[WayIn]:
    way: WayIn = request.param(served)
    yield way
    way.close()


@pytest.fixture
def ways(served: Served) -> Iterator[tuple[HttpWay, GrpcWay]]:
    ways = HttpWay(served), GrpcWay(served)
    yield ways
    for way in ways:
        way.close()


@pytest.mark.parametrize(
    ("fields", "post_ids"),
    [
        ({"member_id": "m"}, ["a", "b", "c"]),
        ({"member_id": "m", "k": 1}, ["a"]),
        ({"member_id": "m", "hide_acted": True, "own_posts": True}, ["b", "c", "d"]),
        ({"text": "words"}, ["a", "b", "c", "d"]),
        ({"vector": VECTOR}, ["a", "b", "c", "d"]),
        ({"vector": [1e30 * number for number in VECTOR]}, ["a", "b", "c", "d"]),
        ({"post_ids": ["a", "b"]}, ["c", "d"]),
        ({"text": "words", "languages": ["en", "de"]}, ["a", "c", "d"]),
        ({"text": "words", "exclude_authors": ["y"], "exclude_posts": ["d"]}, ["a"]),
        ({"text": "words", "only_authors": ["y", "nobody"]}, ["b", "c"]),
        ({"text": "words", "only_posts": ["a", "c", "nothing"]}, ["a", "c"]),
        ({"text": "words", "only_posts": []}, []),
        ({"text": "words", "created_after": "2000-01-01T00:00:00Z"}, ["a", "b", "c", "d"]),
        ({"text": "words", "created_before": "2000-01-01T00:00:00.000001Z"}, []),
        ({"text": "words", "generation": GENERATION}, ["a", "b", "c", "d"]),
    ],
)
def test_the_same_candidates(ways: tuple[HttpWay, GrpcWay], fields: dict[str, Any], post_ids: list[str]) -> None:
    http, grpc = (way.ask("Retrieve", timeout_ms=LONG_MS, **fields) for way in ways)
    assert (http.code, grpc.code) == ("ok", "ok")
    assert http.body["post_ids"] == grpc.body["post_ids"] == post_ids
    assert http.body["tiers"] == grpc.body["tiers"]
    assert np.float32(http.body["scores"]).tolist() == np.float32(grpc.body["scores"]).tolist()
    for name in ("generation", "partial", "reasons"):
        assert http.body[name] == grpc.body[name]
    # The second answer is quicker: it has no cold search of its own.
    assert "total" in http.body["timings_ms"].keys() & grpc.body["timings_ms"].keys()


def test_the_columns_that_are_asked_for(ways: tuple[HttpWay, GrpcWay]) -> None:
    columns = ["author", "created_at", "revision", "language"]
    for way in ways:
        plain = way.ask("Retrieve", text="words", timeout_ms=LONG_MS).body
        assert not plain.get("authors")
        body = way.ask("Retrieve", text="words", columns=columns, timeout_ms=LONG_MS).body
        assert body["authors"] == ["x", "y", "y", "m"]
        assert body["revisions"] == [3, 1, 1, 1]
        assert [language or None for language in body["languages"]] == ["en", None, "de", "en"]
        created = [at if isinstance(at, int) else to_micros(datetime.fromisoformat(at)) for at in body["created_at"]]
        assert created[0] - created[2] == (7200 - 60) * 1_000_000


def test_a_batch_is_its_questions(way: WayIn) -> None:
    queries = [{"member_id": "m", "k": 1}, {"text": "words"}, {"vector": VECTOR, "languages": ["de"]}]
    body = way.ask("RetrieveBatch", queries=queries, timeout_ms=LONG_MS).body
    assert [answer["post_ids"] for answer in body["answers"]] == [["a"], ["a", "b", "c", "d"], ["c"]]


def test_similar_posts(way: WayIn) -> None:
    body = way.ask("Similar", post_ids=["a", "b"], k=1, timeout_ms=LONG_MS).body
    assert body["post_ids"] == ["c"]


def test_vectors(way: WayIn) -> None:
    body = way.ask("Vectors", post_ids=["a", "nothing", "b"], timeout_ms=LONG_MS).body
    assert (body["post_ids"], body["revisions"], body["dimension"]) == (["a", "nothing", "b"], [3, 0, 1], DIMENSION)
    assert [vector[0] for vector in body["vectors"]] == pytest.approx([0.9, 0.0, 0.8])
    assert body["vectors"][1] == [0.0] * DIMENSION


def test_vectors_that_may_be_outdated_say_so(way: WayIn, served: Served) -> None:
    whole = way.ask("Vectors", post_ids=["a"], timeout_ms=LONG_MS).body
    assert (whole["partial"], whole["reasons"]) == (False, [])
    behind = Reason(Code.HOT_BEHIND, "the feed has not reached the end for 20 s")
    served.retriever.feed_problem = behind
    try:
        body = way.ask("Vectors", post_ids=["a"], timeout_ms=LONG_MS).body
    finally:
        served.retriever.feed_problem = None
    assert (body["partial"], body["reasons"]) == (True, [behind._asdict()])


def test_vectors_are_cut_and_of_length_one_again(way: WayIn) -> None:
    whole = way.ask("Vectors", post_ids=["a", "nothing"], timeout_ms=LONG_MS).body
    body = way.ask("Vectors", post_ids=["a", "nothing"], dimension=2, timeout_ms=LONG_MS).body
    assert (body["dimension"], body["vectors"][1]) == (2, [0.0, 0.0])
    first = np.array(whole["vectors"][0][:2])
    assert body["vectors"][0] == pytest.approx((first / np.linalg.norm(first)).tolist())


MANY = ["p"] * 10_001


@pytest.mark.parametrize(
    ("call", "fields", "sentence"),
    [
        ("Retrieve", {}, "give exactly one of member_id, text, vector and post_ids"),
        ("Retrieve", {"member_id": "m", "text": "t"}, "give exactly one of member_id, text, vector and post_ids"),
        ("Retrieve", {"text": "t", "post_ids": ["a"]}, "give exactly one of member_id, text, vector and post_ids"),
        ("Retrieve", {"member_id": "m", "k": 0}, "k: Input should be greater than or equal to 1"),
        ("Retrieve", {"member_id": "m", "k": 3000}, "k: Input should be less than or equal to 2048"),
        ("Retrieve", {"member_id": "m", "timeout_ms": 0}, "timeout_ms: Input should be greater than or equal to 1"),
        ("Retrieve", {"member_id": "m", "timeout_ms": 60_001}, "timeout_ms: Input should be less than or equal to 6"),
        ("Retrieve", {"member_id": ""}, "member_id: String should have at least 1 character"),
        ("Retrieve", {"text": " "}, "text: there is nothing to encode"),
        ("Retrieve", {"text": "t" * 20_001}, "text: String should have at most 20000 characters"),
        (
            "Retrieve",
            {"vector": [1.0, 2.0]},
            f"vector: it has 2 numbers; the vectors of this generation have {DIMENSION}",
        ),
        ("Retrieve", {"vector": [0.0] * DIMENSION}, "vector: all its numbers are zero"),
        ("Retrieve", {"vector": [1.0] * 20_000}, "vector: List should have at most 16384 items"),
        ("Retrieve", {"member_id": "m", "columns": ["author", "colour"]}, "columns.1: Input should be 'author'"),
        ("Retrieve", {"member_id": "m", "languages": ["english"]}, "languages.0: is not a valid language tag"),
        ("Retrieve", {"member_id": "m", "exclude_posts": MANY}, "exclude_posts: List should have at most 10000"),
        ("Retrieve", {"member_id": "m", "exclude_authors": MANY}, "exclude_authors: List should have at most 10000"),
        ("Retrieve", {"member_id": "m", "only_authors": MANY}, "only_authors: List should have at most 10000"),
        ("Retrieve", {"member_id": "m", "only_posts": MANY}, "only_posts: List should have at most 10000"),
        ("Retrieve", {"text": "t", "only_posts": [""] * 10_000}, "only_posts.0: String should have at least 1 char"),
        ("Similar", {}, "post_ids: "),
        ("Similar", {"post_ids": ["a"] * 1001}, "post_ids: List should have at most 1000 items"),
        ("Vectors", {}, "post_ids: "),
        ("Vectors", {"post_ids": ["a"], "dimension": 0}, "dimension: "),
        ("Vectors", {"post_ids": ["a"], "dimension": DIMENSION + 1}, "dimension: it is"),
        ("Vectors", {"post_ids": ["a"] * 1001}, "post_ids: List should have at most 1000 items"),
        ("RetrieveBatch", {}, "queries: "),
        ("RetrieveBatch", {"queries": [{"text": "t"}] * 65}, "queries: List should have at most 64 items"),
        ("RetrieveBatch", {"queries": [{"text": "t"}, {"text": "t", "k": 0}]}, "queries.1.k: Input should be greater"),
        ("RetrieveBatch", {"queries": [{"text": "t"}, {}]}, "queries.1: give exactly one of"),
        ("RetrieveBatch", {"queries": [{"text": "t", "timeout_ms": 5}]}, "queries.0.timeout_ms: Extra inputs"),
        ("RetrieveBatch", {"queries": [{"vector": [0.0]}]}, "queries.0.vector: all its numbers are zero"),
    ],
)
def test_a_wrong_field_is_named(way: WayIn, call: str, fields: dict[str, Any], sentence: str) -> None:
    if call != "RetrieveBatch" or "queries" in fields:
        fields = {"timeout_ms": LONG_MS, **fields}
    outcome = way.ask(call, **fields)
    assert (outcome.code, outcome.detail[: len(sentence)]) == ("bad_field", sentence)
    assert way.ask("Retrieve", member_id="m", timeout_ms=LONG_MS).code == "ok", "others are not disturbed"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_vector_holds_numbers(ways: tuple[HttpWay, GrpcWay], number: float) -> None:
    vector = [1.0, number, *VECTOR[2:]]
    outcome = ways[1].ask("Retrieve", vector=vector)
    assert (outcome.code, outcome.detail) == ("bad_field", "vector.1: Input should be a finite number")


@pytest.mark.parametrize(
    ("call", "fields", "code"),
    [
        ("Retrieve", {"text": "t", "generation": "other"}, "unknown_generation"),
        ("Vectors", {"post_ids": ["a"], "generation": "other"}, "unknown_generation"),
        ("RetrieveBatch", {"queries": [{"text": "t", "generation": "other"}]}, "unknown_generation"),
        ("Similar", {"post_ids": ["nothing", "of this"]}, "not_found"),
    ],
)
def test_what_is_not_there(way: WayIn, call: str, fields: dict[str, Any], code: str) -> None:
    outcome = way.ask(call, timeout_ms=LONG_MS, **fields)
    assert outcome.code == code
    assert ("generation: other" if code == "unknown_generation" else "post_ids: ") in outcome.detail


def test_an_id_and_a_place_in_a_trace_are_given_back(way: WayIn) -> None:
    sent = {"x-request-id": "abc-1", "traceparent": TRACEPARENT}
    for fields in ({"member_id": "m", "timeout_ms": LONG_MS}, {"member_id": "m", "k": 0}):
        headers = way.ask("Retrieve", sent, **fields).headers
        assert {name: headers[name] for name in sent} == sent


@pytest.fixture
def debug_lines() -> Iterator[list[Any]]:
    with capture_logs([merge_contextvars]) as lines:
        before = structlog.get_config()["wrapper_class"]
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))
        yield lines
        structlog.configure(wrapper_class=before)


def test_the_log_has_them(way: WayIn, served: Served, monkeypatch: pytest.MonkeyPatch, debug_lines: list[Any]) -> None:
    sent = {"x-request-id": "abc-2", "traceparent": TRACEPARENT}
    way.ask("Retrieve", sent, member_id="m", timeout_ms=LONG_MS)
    way.ask("Retrieve", sent, member_id="m", generation="other")
    monkeypatch.setattr(served.retriever.under_test, "answer", lambda _: 1 / 0)
    way.ask("Retrieve", sent, member_id="m", timeout_ms=LONG_MS)
    events = [line["event"] for line in debug_lines if line.get("request_id") == "abc-2"]
    assert events[:2] == ["answered", "not answered"]
    # uvicorn logs the third one over HTTP, by Python's own logging.
    assert events[2:] == ([] if isinstance(way, HttpWay) else ["a request failed"])
    assert {line["traceparent"] for line in debug_lines} == {TRACEPARENT}


@pytest.mark.parametrize("strange", ["a b", "x" * 129])
def test_who_gives_no_id_gets_one(way: WayIn, strange: str) -> None:
    given = [way.ask("Retrieve", sent, member_id="m").headers for sent in (None, {"x-request-id": strange})]
    ids = [headers["x-request-id"] for headers in given]
    assert len(set(ids)) == 2
    assert strange not in ids
    bad_trace = way.ask("Retrieve", {"traceparent": "00-zz"}, member_id="m").headers
    assert "traceparent" not in bad_trace


def test_an_outage_is_said(way: WayIn, served: Served) -> None:
    served.retriever.cold.fails = served.retriever.hot.fails = True
    try:
        outcome = way.ask("Retrieve", text="words", timeout_ms=LONG_MS)
    finally:
        served.retriever.cold.fails = served.retriever.hot.fails = False
    assert (outcome.code, outcome.detail) == ("unavailable", "neither tier can answer now; try again")


def test_a_mistake_of_ours_is_said_without_details(way: WayIn, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Question) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(served.retriever.under_test, "answer", fail)
    outcome = way.ask("Retrieve", text="words")
    assert (outcome.code, outcome.detail) == ("internal", "the retriever failed on this request; its log says why")


def test_both_share_one_queue(ways: tuple[HttpWay, GrpcWay], served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two places and one who waits."""
    gate = Gate(served.retriever.under_test.answer)
    monkeypatch.setattr(served.retriever.under_test, "answer", gate)
    queues: list[QuestionQueue] = []
    enter = QuestionQueue._enter

    async def noted(queue: QuestionQueue, deadline: float) -> None:
        queues.append(queue)
        await enter(queue, deadline)

    monkeypatch.setattr(QuestionQueue, "_enter", noted)
    with ThreadPoolExecutor(3) as pool:
        inside = [pool.submit(way.ask, "Retrieve", text="words", timeout_ms=LONG_MS) for way in ways]
        gate.wait_for(2)
        waiting = pool.submit(ways[0].ask, "Retrieve", text="words", timeout_ms=LONG_MS)
        until(lambda: queues[0].num_waiting == 1, "the queue to be full")
        for way in ways:
            outcome = way.ask("Retrieve", text="words", timeout_ms=LONG_MS)
            assert outcome.code == "busy"
            assert outcome.retry_after_ms is not None
            assert outcome.retry_after_ms >= 1
            assert way.ask("Retrieve", member_id="m", k=0).code == "busy", "its fields are not even looked at"
        gate.open()
        assert [asked.result().code for asked in (*inside, waiting)] == ["ok"] * 3


def test_a_question_that_hangs_ends_in_time(way: WayIn, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(served.retriever.under_test.answer)
    monkeypatch.setattr(served.retriever.under_test, "answer", gate)
    outcome = way.ask("Retrieve", text="words", timeout_ms=100)
    gate.open()
    assert outcome.code in ("deadline_exceeded", "busy")


def test_the_retriever_gets_the_time_that_is_left(
    ways: tuple[HttpWay, GrpcWay], served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smaller one of timeout_ms and gRPC's own deadline, less what writing the answer may take."""
    asked: list[Question] = []
    answer = served.retriever.under_test.answer

    def note(question: Question) -> Any:
        asked.append(question)
        return answer(question)

    monkeypatch.setattr(served.retriever.under_test, "answer", note)
    http, grpc = ways
    http.ask("Retrieve", text="words", timeout_ms=20_000)
    assert 10 < asked[-1].timeout_s < 20
    message = grpc.ask("Retrieve", text="words", timeout_ms=20_000)
    assert message.code == "ok"
    assert 10 < asked[-1].timeout_s < 20
    body = grpc_message("Retrieve", {"text": "words", "timeout_ms": 20_000}).SerializeToString()
    assert grpc.send("Retrieve", body, timeout_s=8.0).code == "ok"
    assert 2 < asked[-1].timeout_s < 8
