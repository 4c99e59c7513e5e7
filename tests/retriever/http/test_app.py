"""The HTTP service over a real socket: what is asked, what is refused, who may ask, and when it is ready."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from retriever.http import app
from retriever.http.openapi import OPENAPI
from retriever.reasons import Code, Reason
from tests.kit.retrievers import NOW_S, RetrieverSetup, Served, asking_member, scored_post

KEY = SecretStr("a-secret-\N{SNOWMAN}")


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    retriever = RetrieverSetup()
    retriever.in_cold(
        asking_member("m"),
        scored_post("a", 0.9),
        scored_post("c", 0.7),
        scored_post("x/y?z#", 0.1),
        scored_post("x\ny", 0.1),
    )
    retriever.in_hot(scored_post("b", 0.8))
    retriever.trends(a=2)
    with Served(retriever) as served:
        yield served


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    # One for each test: the server closes a connection after an answer of 500.
    with httpx.Client(base_url=served.url, trust_env=False, timeout=20) as client:
        yield client


def ask(http: httpx.Client, **request: Any) -> httpx.Response:
    """With so much time that no answer is late, however slow the machine is."""
    return http.post("/v1/retrieve", json={"timeout_ms": 30_000, **request})


def test_an_answer_is_columnar(http: httpx.Client) -> None:
    answer = ask(http, member_id="m", k=3)
    assert answer.status_code == 200
    body = answer.json()
    assert body["post_ids"] == ["a", "b", "c"]
    assert body["tiers"] == ["cold", "hot", "cold"]
    assert body["scores"] == pytest.approx([0.9, 0.8, 0.7])
    assert body["counts"] == {"hot": 1, "cold": 2, "trending": 0}
    assert (body["generation"], body["partial"], body["reasons"]) == ("test-0", False, [])


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({}, "give exactly one of member_id, text, vector and post_ids"),
        ({"member_id": "m", "text": "t"}, "give exactly one of member_id, text, vector and post_ids"),
        ({"vector": [1.0], "post_ids": ["p"]}, "give exactly one of member_id, text, vector and post_ids"),
        ({"member_id": "m", "k": 3000}, "k: Input should be less than or equal to 2048"),
        ({"vector": [0.0, -0.0]}, "vector: all its numbers are zero"),
        ({"vector": []}, "vector: List should have at least 1 item"),
        ({"vector": [1.0, "1"]}, "vector.1: Input should be a valid number"),
        ({"post_ids": []}, "post_ids: List should have at least 1 item"),
        ({"post_ids": ["p"] * 1001}, "post_ids: List should have at most 1000 items"),
        ({"member_id": "m", "timeout_ms": 0}, "timeout_ms: Input should be greater than or equal to 1"),
        ({"member_id": "m", "timeout_ms": 60_001}, "timeout_ms: Input should be less than or equal to 60000"),
        ({"member_id": "m", "columns": ["colour"]}, "columns.0: Input should be 'author', 'created_at', 'rev"),
        ({"member_id": "m", "only_posts": ["p"] * 10_001}, "only_posts: List should have at most 10000 items"),
        ({"member_id": "m", "k": 2049}, "k: Input should be less than or equal to 2048"),
        ({"member_id": "m", "k": 0}, "k: Input should be greater than or equal to 1"),
        ({"member_id": "m", "k": "many"}, "k: Input should be a valid integer"),
        ({"member_id": "m", "k": "5"}, "k: Input should be a valid integer"),
        ({"member_id": "m", "k": True}, "k: Input should be a valid integer"),
        ({"member_id": "m", "k": 5.5}, "k: Input should be a valid integer"),
        ({"member_id": "m", "k": None}, "k: Input should be a valid integer"),
        ({"member_id": "m", "hide_acted": "yes"}, "hide_acted: Input should be a valid boolean"),
        ({"member_id": "m", "own_posts": 1}, "own_posts: Input should be a valid boolean"),
        ({"member_id": 7}, "member_id: Input should be a valid string"),
        ({"member_id": ""}, "member_id: String should have at least 1 character"),
        ({"member_id": "m" * 257}, "member_id: String should have at most 256 characters"),
        ({"text": ""}, "text: String should have at least 1 character"),
        ({"text": " "}, "text: there is nothing to encode"),
        ({"text": "t" * 20_001}, "text: String should have at most 20000 characters"),
        (
            {"member_id": "m", "languages": ["en", "english"]},
            "languages.1: is not a valid language tag; send a tag such as en",
        ),
        ({"member_id": "m", "languages": "en"}, "languages: Input should be a valid list"),
        ({"member_id": "m", "languages": ["en", 7]}, "languages.1: Input should be a valid string"),
        (
            {"member_id": "m", "created_after": "yesterday"},
            "created_after: 'yesterday' is not an RFC 3339 time",
        ),
        ({"member_id": "m", "created_after": "1767600000"}, "created_after: '1767600000' is not an RFC 3339 time"),
        ({"member_id": "m", "created_after": 1767600000}, "created_after: give an RFC 3339 time such as 2026-01-05T10"),
        ({"member_id": "m", "created_after": "2026-01-05"}, "created_after: '2026-01-05' has no zone; add Z"),
        (
            {"member_id": "m", "created_after": "2026-01-05T10:00:00"},
            "created_after: '2026-01-05T10:00:00' has",
        ),
        ({"member_id": "m", "exclude_posts": ["p"] * 10_001}, "exclude_posts: List should have at most 10000 items"),
        ({"member_id": "m", "exclude_authors": ["a"] * 10_001}, "exclude_authors: List should have at most 10000"),
        ({"member_id": "m", "exclude_posts": ["p" * 257]}, "exclude_posts.0: String should have at most 256"),
        ({"member_id": "m", "languages": ["en"] * 101}, "languages: List should have at most 100 items"),
        ({"member_id": "m", "colour": "red"}, "colour: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_request_names_the_field(http: httpx.Client, request_: dict[str, Any], sentence: str) -> None:
    answer = ask(http, **request_)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem.pop("detail").startswith(sentence)
    assert problem == {"title": "bad field", "status": 422, "code": "bad_field"}


def test_of_very_many_mistakes_few_are_said(http: httpx.Client) -> None:
    sentence = "exclude_posts.0: Input should be a valid string; vector.0: Input should be a valid number"
    assert ask(http, exclude_posts=[7] * 1000, vector=["1"] * 1000).json()["detail"] == sentence
    unknown = {f"field {number}": 0 for number in range(1000)}
    assert ask(http, **unknown).json()["detail"] == "there are 1,001 fields, and 18 are known"
    sentence = "queries.1: there are 1,000 fields, and 17 are known"
    answer = http.post("/v1/retrieve/batch", json={"queries": [{"member_id": "m"}, unknown]})
    assert (answer.status_code, answer.json()["detail"]) == (422, sentence)


def test_an_unknown_generation_is_not_found(http: httpx.Client) -> None:
    answer = ask(http, member_id="m", generation="other")
    assert answer.status_code == 404
    assert answer.json()["detail"] == "generation: other is not served; test-0 is"
    assert answer.json()["code"] == "unknown_generation"
    assert ask(http, member_id="m", generation="test-0").status_code == 200


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{", "the body is not valid JSON"),
        (b"", "body: Field required"),
        (b"[]", "body: "),
        (b'{"member_id": "\\ud800"}', "member_id: "),
        (b'{"member_id": "m", "k": NaN}', "k: "),
        (b"[" * 100_000, "the body nests lists or objects too deeply"),
        (b'{"member_id": "\xff"}', "the body is not UTF-8 (position 15); send JSON in UTF-8"),
    ],
)
def test_rubbish_is_refused_in_a_sentence(http: httpx.Client, body: bytes, sentence: str) -> None:
    answer = http.post("/v1/retrieve", content=body, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500
    assert answer.json()["detail"].startswith(sentence)


@pytest.mark.parametrize(
    "headers", [{}, {"Content-Type": "application/x-www-form-urlencoded"}, {"Content-Type": "text/json"}]
)
def test_a_body_that_does_not_say_that_it_is_json_is_told_how(http: httpx.Client, headers: dict[str, str]) -> None:
    """curl says that it sends a form."""
    answer = http.post("/v1/retrieve", content=b'{"member_id": "m"}', headers=headers)
    assert answer.status_code == 415
    sentence = "the body must be JSON; send it with the header Content-Type: application/json"
    assert (answer.json()["code"], answer.json()["detail"]) == ("not_json", sentence)


@pytest.mark.parametrize("media", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"])
def test_all_names_of_json_are_taken(http: httpx.Client, media: str) -> None:
    body = b'{"member_id": "m", "timeout_ms": 30000}'
    assert http.post("/v1/retrieve", content=body, headers={"Content-Type": media}).status_code == 200
    assert http.post("/v1/retrieve", content=b"[]", headers={"Content-Type": media}).status_code == 422


def test_the_description_is_made_once(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def again(_: object) -> dict[str, Any]:
        raise AssertionError

    monkeypatch.setattr(app, "describe", again)
    for _ in range(2):
        answer = http.get("/openapi.json")
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == json.loads(OPENAPI.read_bytes())


def test_a_post_with_an_awkward_id_is_found(http: httpx.Client) -> None:
    response = http.get("/v1/posts/x%2Fy%3Fz%23").json()
    assert (response["post_id"], response["cold"]["present"], response["hot"]["present"]) == ("x/y?z#", True, False)
    assert response["cold"]["revision"] == 1
    assert datetime.fromisoformat(response["cold"]["created_at"]).timestamp() == NOW_S - 60
    assert http.get("/v1/posts/x%0Ay").json()["cold"]["present"] is True
    assert http.get(f"/v1/posts/{'p' * 257}").status_code == 422


def test_hot_posts_come_as_lines(http: httpx.Client) -> None:
    answer = http.get("/v1/hot/posts")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    (line,) = answer.text.splitlines()
    assert json.loads(line)["post_id"] == "b"


def test_hot_posts_that_cannot_be_had_are_a_503_with_a_sentence(served: Served, http: httpx.Client) -> None:
    served.retriever.hot.fails = "scroll_posts"
    try:
        answer = http.get("/v1/hot/posts")
    finally:
        served.retriever.hot.fails = False
    sentence = "the hot tier cannot answer now; try again"
    assert (answer.status_code, answer.json()["code"], answer.json()["detail"]) == (503, "unavailable", sentence)
    assert http.get("/v1/hot/posts", params={"generation": "other"}).status_code == 404


def test_hot_positions_and_status_are_passed_on(http: httpx.Client) -> None:
    assert http.get("/v1/hot/positions").json()["topic"] == "post-embeddings.test-0"
    assert http.get("/v1/status").json()["generation"] == "test-0"


def test_an_outage_is_a_503_with_a_sentence(http: httpx.Client, served: Served) -> None:
    served.retriever.cold.fails = served.retriever.hot.fails = True
    try:
        answer = ask(http, text="t")
        assert (answer.status_code, answer.json()["detail"]) == (503, "neither tier can answer now; try again")
        assert http.get("/v1/posts/a").status_code == 503
        assert http.get("/livez").status_code == 200
    finally:
        served.retriever.cold.fails = served.retriever.hot.fails = False


def test_a_mistake_of_ours_is_a_500_without_details(served: Served, http: httpx.Client) -> None:
    served.retriever.broken_status = True
    try:
        answer = http.get("/v1/status")
    finally:
        served.retriever.broken_status = False
    assert answer.status_code == 500
    sentence = "the retriever failed on this request; its log says why"
    assert (answer.json()["code"], answer.json()["detail"]) == ("internal", sentence)


def test_ready_says_what_is_missing() -> None:
    retriever = RetrieverSetup(warm=False)
    retriever.feed_problem = Reason(Code.HOT_CATCHING_UP, "5 records to go")
    with Served(retriever) as served, httpx.Client(base_url=served.url, trust_env=False) as http:
        assert http.get("/livez").status_code == 200
        answer = http.get("/readyz")
        assert answer.status_code == 503
        warming = "the model is still warming up"
        assert answer.json() == {
            "ready": False,
            "problems": [warming, "5 records to go"],
            "beside": {},
            "standing_still": [],
        }
        retriever.warm_up()
        retriever.feed_problem = None
        assert (http.get("/readyz").status_code, http.get("/readyz").json()["ready"]) == (200, True)


@pytest.fixture(scope="module")
def guarded() -> Iterator[httpx.Client]:
    retriever = RetrieverSetup()
    retriever.in_cold(asking_member("m"), scored_post("a"))
    with Served(retriever, api_key=KEY) as served, httpx.Client(base_url=served.url, trust_env=False) as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": "wrong"},
        {"X-API-Key": ""},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic a-secret-\N{SNOWMAN}"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/retrieve", "/v1/status", "/v1/hot/posts", "/metrics", "/openapi.json", "/none"])
def test_without_the_key_nothing_is_told(guarded: httpx.Client, path: str, headers: dict[str, str]) -> None:
    encoded = {name: value.encode() for name, value in headers.items()}
    method = "POST" if path == "/v1/retrieve" else "GET"
    answer = guarded.request(method, path, headers=encoded, content=b"{" if method == "POST" else None)
    assert answer.status_code == 401
    assert "API key" in answer.json()["detail"]
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("name", ["X-API-Key", "Authorization"])
def test_the_key_opens_in_either_header(guarded: httpx.Client, name: str) -> None:
    value = KEY.get_secret_value()
    headers = {name: (f"bearer {value}" if name == "Authorization" else value).encode()}
    request = {"member_id": "m", "timeout_ms": 30_000}
    assert guarded.post("/v1/retrieve", json=request, headers=headers).json()["post_ids"] == ["a"]
    assert guarded.get("/openapi.json", headers=headers).status_code == 200


def test_the_key_is_compared_in_constant_time(guarded: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr("hmac.compare_digest", lambda sent, expected: bool(compared.append((sent, expected))))
    value = KEY.get_secret_value().encode()
    assert guarded.get("/metrics", headers={"X-API-Key": value}).status_code == 401, "it compares in another way too"
    assert compared == [(value, value)]


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_is_too_large_is_refused_before_it_is_whole(http: httpx.Client, declared: bool) -> None:
    piece = b" " * 1024 * 1024
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(200):
            sent += len(piece)
            yield piece

    length = {"Content-Length": str(200 * len(piece))} if declared else {}
    try:
        answer = http.post("/v1/retrieve", content=pieces(), headers={**length, "Content-Type": "application/json"})
        assert answer.status_code == 413
        assert "8,388,608 bytes" in answer.json()["detail"]
    except (httpx.ReadError, httpx.RemoteProtocolError):
        assert not declared, "it hung up while we were still sending"
    assert sent < 200 * len(piece)
    assert ask(http, member_id="m").status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_health_needs_no_key(guarded: httpx.Client, path: str) -> None:
    assert guarded.get(path).status_code == 200
