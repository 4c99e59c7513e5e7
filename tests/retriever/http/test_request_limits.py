"""Limits on what clients may cost: places, time and memory. A refusal says why, and other requests are answered."""

from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from retriever.client import RetrieverClient
from retriever.errors import RetrieverUnavailable
from retriever.http import request_limits, server
from schemas.api import RetrieveRequest
from tests.kit.raw_clients import HEAD, LIVE, Gate, Talk, ask
from tests.kit.retrievers import RetrieverSetup, Served
from tests.kit.waiting import until


def test_a_full_house_says_when_to_come_again_and_health_still_answers(
    served: Served, retriever: RetrieverSetup
) -> None:
    lookup = Gate(retriever.members.find)
    retriever.members.find = lookup  # type: ignore[method-assign]
    with ThreadPoolExecutor(3) as pool:
        inside: list[Future[httpx.Response]] = [pool.submit(ask, served) for _ in range(2)]
        lookup.wait_for(2)
        waiting = pool.submit(ask, served)
        until(lambda: "nearline_waiting_requests 1.0" in ask(served, "/metrics").text, "a question to wait")
        refused = ask(served)
        assert refused.status_code == 429
        problem = refused.json()
        assert (problem["code"], refused.headers["retry-after"]) == ("busy", "1"), "a fraction of a second, rounded up"
        assert 1 <= problem["retry_after_ms"] < 1000
        assert ask(served, "/v1/posts/a").status_code == 429, "the tiers are asked for it too"
        with RetrieverClient(served.url) as client, pytest.raises(RetrieverUnavailable, match="try again"):
            client.retrieve(RetrieveRequest(member_id="m"))
        assert [ask(served, path).status_code for path in ("/livez", "/metrics", "/v1/status")] == [200] * 3
        assert "nearline_refused_requests_total 3.0" in ask(served, "/metrics").text
        lookup.open()
        assert [request.result().status_code for request in (*inside, waiting)] == [200] * 3
    assert [ask(served).status_code for _ in range(3)] == [200] * 3, "their places are free again"


def test_operations_that_hang_take_no_place_of_a_question(served: Served, retriever: RetrieverSetup) -> None:
    scroll = Gate(retriever.hot.tier.scroll_posts)
    retriever.hot.tier.scroll_posts = scroll
    number = request_limits.OPERATIONS_IN_FLIGHT
    with ThreadPoolExecutor(number) as pool:
        inside = [pool.submit(ask, served, "/v1/hot/posts") for _ in range(number)]
        scroll.wait_for(number)
        assert ask(served, "/v1/status").status_code == 429
        assert "nearline_refused_requests_total 0.0" in ask(served, "/metrics").text, "a status is no question"
        assert ask(served).status_code == 200
        scroll.open()
        assert [request.result().status_code for request in inside] == [200] * number


def test_a_refusal_needs_none_of_their_threads(served: Served, retriever: RetrieverSetup) -> None:
    scroll = Gate(retriever.hot.tier.scroll_posts)
    retriever.hot.tier.scroll_posts = scroll
    number = request_limits.OPERATIONS_IN_FLIGHT
    with ThreadPoolExecutor(number) as pool:
        inside = [pool.submit(ask, served, "/v1/hot/posts") for _ in range(number)]
        scroll.wait_for(number)
        with httpx.Client(base_url=served.url, trust_env=False, timeout=30) as http:
            assert http.post("/v1/retrieve", json={"member_id": "m", "k": 0}).status_code == 422
            assert http.post("/v1/retrieve", json={"text": "t", "generation": "other"}).status_code == 404
            assert http.get("/nothing").status_code == 404
        scroll.open()
        assert [request.result().status_code for request in inside] == [200] * number


def test_a_request_that_fails_gives_its_place_back(served: Served, retriever: RetrieverSetup) -> None:
    retriever.broken_status = True
    statuses = [ask(served, "/v1/status").status_code for _ in range(2 * request_limits.OPERATIONS_IN_FLIGHT)]
    assert set(statuses) == {500}


def test_what_says_that_it_is_too_large_need_not_come(served: Served) -> None:
    with Talk(served) as talk:
        talk.say(HEAD.replace("1000", str(request_limits.MAX_BODY_BYTES + 1)))
        assert talk.hear().startswith("HTTP/1.1 413 ")


def test_large_requests_together_are_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_limits, "MAX_BODIES_BYTES", 900)
    with Talk(served) as first, Talk(served) as second:
        first.say(HEAD + 800 * " ")
        until(lambda: _is_full(served), "the first body to be held")
        second.say(HEAD + 800 * " ")
        heard = second.hear()
        assert heard.startswith("HTTP/1.1 429 ")
        assert "retry-after: 1" in heard
    until(lambda: not _is_full(served), "the first body to be forgotten with its client")


def _is_full(served: Served) -> bool:
    with httpx.Client(base_url=served.url, trust_env=False, timeout=30) as http:
        return http.post("/v1/retrieve", content=200 * b" ").status_code == 429


def test_connections_are_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_max_connections", lambda: 2)
    monkeypatch.setattr(server, "HEAD_S", 60.0)  # else that limit would close the third one too
    with Talk(served) as first, Talk(served) as second:
        for talk in (first, second):
            talk.say(LIVE)
            assert "200 OK" in talk.hear()
        with Talk(served) as third:
            assert third.drip() == ""
        first.say(LIVE)
        assert "200 OK" in first.hear()
