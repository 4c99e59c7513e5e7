"""By which names a retriever may be asked. DNS rebinding: a browser takes what is asked at the name of a site for that
site's own, and lets its page read the answer."""

from collections.abc import Iterator

import httpx
import pytest

from retriever.http.host_check import REFUSAL
from tests.kit.retrievers import RetrieverSetup, Served, asking_member, scored_post

QUESTION = {"member_id": "m", "timeout_ms": 30_000}


def served_by(**settings: object) -> Served:
    retriever = RetrieverSetup(warm=False)
    retriever.in_cold(asking_member("m"), scored_post("a"))
    return Served(retriever, **settings)


def client_of(served: Served) -> httpx.Client:
    return httpx.Client(base_url=served.url.replace("0.0.0.0", "127.0.0.1"), trust_env=False, timeout=30)


@pytest.fixture(scope="module")
def on_loopback() -> Iterator[httpx.Client]:
    with served_by() as served, client_of(served) as http:
        yield http


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "localhost.:1", "127.0.0.1:80", "127.9.9.9", "[::1]:8080", "a.localhost"]
)
def test_on_loopback_its_names_are_answered(on_loopback: httpx.Client, host: str) -> None:
    assert on_loopback.get("/livez", headers={"Host": host}).status_code == 200
    assert on_loopback.post("/v1/retrieve", json=QUESTION, headers={"Host": host}).json()["post_ids"] == ["a"]


@pytest.mark.parametrize(
    "host",
    [
        *("attacker.example", "attacker.example:8080", "127.0.0.1.attacker.example", "localhost.attacker.example"),
        *("notlocalhost", "192.0.2.7:8080", "0.0.0.0", "[2001:db8::1]", "127.0.0.1@attacker.example", "[", ""),
    ],
)
def test_another_sites_name_that_leads_here_is_refused_everything(on_loopback: httpx.Client, host: str) -> None:
    calls = [("GET", path) for path in ("/v1/status", "/v1/hot/posts", "/metrics", "/livez", "/openapi.json", "/else")]
    for method, path in [*calls, ("POST", "/v1/retrieve"), ("OPTIONS", "/v1/retrieve")]:
        refused = on_loopback.request(method, path, json=QUESTION, headers={"Host": host})
        problem = {"title": "wrong host", "status": 403, "detail": REFUSAL, "code": "wrong_host"}
        assert (refused.status_code, refused.json()) == (403, problem), path
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["x-request-id"]


def test_with_a_key_any_name_leads_to_it() -> None:
    """A page of another site does not have the key."""
    with served_by(api_key="a-secret") as served, client_of(served) as http:
        headers = {"Host": "retriever.example", "X-API-Key": "a-secret"}
        assert http.post("/v1/retrieve", json=QUESTION, headers=headers).status_code == 200


def test_beyond_loopback_any_name_leads_to_it() -> None:
    with served_by(host="0.0.0.0") as served, client_of(served) as http:
        assert http.post("/v1/retrieve", json=QUESTION, headers={"Host": "retriever.example"}).status_code == 200
