"""Limits on what clients may cost: places, time and memory. A refusal says why, and other requests are answered."""

import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import repeat
from pathlib import Path
from threading import Event, Semaphore
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from retriever.client import RetrieverClient
from retriever.errors import RetrieverUnavailable
from retriever.http import request_limits, server
from schemas.api import RetrieveRequest
from tests.kit.certificates import certificate
from tests.kit.retrievers import RetrieverSetup, Served, asking_member, scored_post
from tests.kit.waiting import until

KEY = "secret"


class Gate:
    """Holds every call of a function until it is opened."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._open = Event()
        self._came = Semaphore(0)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self._came.release()
        assert self._open.wait(30)
        return self._function(*arguments, **named)

    def wait_for(self, number: int) -> None:
        for _ in range(number):
            assert self._came.acquire(timeout=30)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def retriever() -> RetrieverSetup:
    retriever = RetrieverSetup(warm=False)
    retriever.in_cold(asking_member("m"), scored_post("a"))
    return retriever


@pytest.fixture
def served(retriever: RetrieverSetup) -> Iterator[Served]:
    with Served(retriever, in_flight=2) as served:
        yield served


def ask(served: Served, path: str = "/v1/retrieve") -> httpx.Response:
    with httpx.Client(base_url=served.url, trust_env=False, timeout=30) as http:
        return http.post(path, json={"member_id": "m"}) if path == "/v1/retrieve" else http.get(path)


def test_a_full_house_says_come_again_and_health_still_answers(served: Served, retriever: RetrieverSetup) -> None:
    search = Gate(retriever.cold.tier.search)
    retriever.cold.tier.search = search
    with ThreadPoolExecutor(2) as pool:
        inside: list[Future[httpx.Response]] = [pool.submit(ask, served) for _ in range(2)]
        search.wait_for(2)
        refused = ask(served)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert "try again" in refused.json()["detail"]
        assert ask(served, "/v1/posts/a").status_code == 429, "the tiers are asked for it too"
        with RetrieverClient(served.url) as client, pytest.raises(RetrieverUnavailable, match="try again"):
            client.retrieve(RetrieveRequest(member_id="m"))
        assert [ask(served, path).status_code for path in ("/livez", "/metrics", "/v1/status")] == [200] * 3
        assert "nearline_refused_requests_total 3.0" in ask(served, "/metrics").text
        search.open()
        assert [request.result().status_code for request in inside] == [200, 200]
    assert [ask(served).status_code for _ in range(3)] == [200] * 3, "their places are free again"


def test_operations_that_hang_take_no_place_of_a_question(served: Served, retriever: RetrieverSetup) -> None:
    scroll = Gate(retriever.hot.tier.scroll_posts)
    retriever.hot.tier.scroll_posts = scroll
    number = request_limits.OPERATIONS_IN_FLIGHT
    with ThreadPoolExecutor(number) as pool:
        inside = [pool.submit(ask, served, "/v1/hot/posts") for _ in range(number)]
        scroll.wait_for(number)
        assert ask(served, "/v1/status").status_code == 429
        assert ask(served).status_code == 200
        scroll.open()
        assert [request.result().status_code for request in inside] == [200] * number


def test_a_request_that_fails_gives_its_place_back(served: Served, retriever: RetrieverSetup) -> None:
    retriever.broken_status = True
    statuses = [ask(served, "/v1/status").status_code for _ in range(2 * request_limits.OPERATIONS_IN_FLIGHT)]
    assert set(statuses) == {500}


class Talk:
    """One connection, byte by byte. The server's buffers of it are small, as are ours."""

    def __init__(self, served: Served) -> None:
        address = urlsplit(served.url)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(30)
        self._socket.connect((address.hostname, address.port))

    def __enter__(self) -> "Talk":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def say(self, words: str) -> None:
        self._socket.sendall(words.encode())

    def hear(self) -> str:
        """One whole answer, which may come in pieces; empty where the server hangs up instead."""
        heard = piece = self._piece()
        while piece and not _is_whole(heard):
            piece = self._piece()
            heard += piece
        return heard

    def hear_all(self) -> str:
        """Until the server hangs up."""
        return "".join(iter(self._piece, ""))

    def drip(self, timeout_s: float = 20.0) -> str:
        """Says one byte after the other until the server has had enough, and returns what it said to that."""
        heard: list[str] = []
        self._socket.settimeout(0.05)

        def hung_up() -> bool:
            try:
                self.say("x")
                heard.append(self._piece())
            except TimeoutError:
                return False
            except ConnectionError:
                return True
            return heard[-1] == ""

        until(hung_up, "the server to hang up", timeout_s)
        return "".join(heard)

    def _piece(self) -> str:
        try:
            return self._socket.recv(10_000).decode()
        except ConnectionResetError:
            return ""


def _is_whole(answer: str) -> bool:
    head, _, body = answer.partition("\r\n\r\n")
    length = head.lower().partition("content-length: ")[2].partition("\r\n")[0]
    return length != "" and len(body) >= int(length)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.5)
    monkeypatch.setattr(server, "KEEP_ALIVE_S", 1)
    monkeypatch.setattr(server, "UNREAD_S", 2.0)
    monkeypatch.setattr(request_limits, "BODY_S", 0.5)


HEAD = "POST /v1/retrieve HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
LIVE = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.usefixtures("impatient")
class TestSlowClients:
    def test_headers_that_come_drop_by_drop(self, served: Served) -> None:
        with Talk(served) as talk:
            talk.say("GET /livez HTTP/1.1\r\nX: ")
            assert talk.drip() == ""

    def test_headers_of_a_second_request(self, served: Served) -> None:
        with Talk(served) as talk:
            talk.say(LIVE)
            assert "200 OK" in talk.hear()
            talk.say("GET /livez HTTP/1.1\r\nX: ")
            assert talk.drip() == ""

    def test_a_body_that_comes_drop_by_drop(self, served: Served) -> None:
        with Talk(served) as talk:
            talk.say(HEAD)
            heard = talk.drip()
        assert heard.startswith("HTTP/1.1 408 ")
        assert "did not arrive within 0.5 s" in heard

    def test_a_body_that_was_refused_already(self, retriever: RetrieverSetup) -> None:
        with Served(retriever, api_key=KEY) as served, Talk(served) as talk:
            talk.say(HEAD)
            assert "401 Unauthorized" in talk.hear()
            talk.drip()

    def test_one_who_says_nothing(self, served: Served) -> None:
        with Talk(served) as talk:
            assert talk.hear() == ""

    def test_one_who_has_nothing_more_to_say(self, served: Served) -> None:
        with Talk(served) as talk:
            talk.say(LIVE)
            assert "200 OK" in talk.hear_all()

    def test_those_who_do_not_take_the_answer(self, served: Served, retriever: RetrieverSetup) -> None:
        retriever.in_hot(scored_post("h"))
        # More than all buffers between us take.
        (stored,) = retriever.hot.tier.scroll_posts()
        retriever.hot.tier.scroll_posts = lambda: repeat(stored, 1_000_000)
        with ExitStack() as talks:
            for _ in range(request_limits.OPERATIONS_IN_FLIGHT):
                talks.enter_context(Talk(served)).say("GET /v1/hot/posts HTTP/1.1\r\nHost: x\r\n\r\n")
            until(lambda: ask(served, "/v1/hot/positions").status_code == 429, "them to have all places")
            until(lambda: ask(served, "/v1/hot/positions").status_code == 200, "a place to be free again")

    def test_requests_that_take_their_time_are_not_cut(
        self, served: Served, retriever: RetrieverSetup, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither by a pause in the body nor by one before the answer, each longer than headers may take."""
        monkeypatch.setattr(request_limits, "BODY_S", 60.0)
        search = Gate(retriever.cold.tier.search)
        retriever.cold.tier.search = search
        body = '{"member_id": "m"}'
        with Talk(served) as talk:
            for piece in (HEAD.replace("1000", str(len(body))), body[:5], body[5:]):
                talk.say(piece)
                _pause_for_longer_than_headers_may_take(served)
            search.wait_for(1)
            search.open()
            assert talk.hear().startswith("HTTP/1.1 200 OK")


def _pause_for_longer_than_headers_may_take(served: Served) -> None:
    """Whoever connects now and says nothing is hung up on when that time is over."""
    with Talk(served) as silent:
        assert silent.hear() == ""


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


@pytest.fixture
def secured(retriever: RetrieverSetup, tmp_path: Path) -> Iterator[Served]:
    with Served(retriever, **certificate(tmp_path, "127.0.0.1").settings()) as served:
        yield served


class TestTlsHandshakes:
    @pytest.mark.usefixtures("impatient")
    def test_one_who_says_nothing(self, secured: Served) -> None:
        with Talk(secured) as talk:
            assert talk.hear() == ""

    @pytest.mark.usefixtures("impatient")
    def test_one_who_breaks_off(self, secured: Served) -> None:
        with Talk(secured) as talk:
            talk.say("\x16\x03\x01")  # how a greeting begins
            assert talk.hear() == ""

    def test_one_who_speaks_something_else(self, secured: Served) -> None:
        with Talk(secured) as talk:
            talk.say(LIVE)
            assert "HTTP" not in talk.hear_all()

    def test_they_count_as_connections(self, secured: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "_max_connections", lambda: 3)
        monkeypatch.setattr(server, "HEAD_S", 60.0)  # else that limit would close them
        with ExitStack() as silent:
            for _ in range(2):
                silent.enter_context(Talk(secured))
            with TlsTalk(secured) as talk:
                assert "200 OK" in talk.ask(LIVE)
                with Talk(secured) as one_too_many:
                    assert one_too_many.hear() == ""
                assert "200 OK" in talk.ask(LIVE)
        until(lambda: _is_let_in(secured), "their places to be free again")

    def test_a_request_may_come_with_the_end_of_the_handshake(self, secured: Served) -> None:
        with TlsTalk(secured, first=LIVE) as talk:
            assert "200 OK" in talk.hear()


class TlsTalk:
    """One connection that speaks TLS, piece by piece."""

    def __init__(self, served: Served, first: str = "") -> None:
        """`first` is sent in one piece with the end of the handshake."""
        address = urlsplit(served.url)
        self._socket = socket.create_connection((address.hostname, address.port), 30)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._heard, self._said = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._heard, self._said)
        self._until_done(self._tls.do_handshake)
        self._tls.write(first.encode())
        self._socket.sendall(self._said.read())

    def __enter__(self) -> "TlsTalk":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, words: str) -> str:
        self._tls.write(words.encode())
        self._socket.sendall(self._said.read())
        return self.hear()

    def hear(self) -> str:
        """One whole answer."""
        heard = ""
        while not _is_whole(heard):
            heard += self._until_done(lambda: self._tls.read(10_000)).decode()
        return heard

    def _until_done(self, step: Callable[[], Any]) -> Any:
        while True:
            with suppress(ssl.SSLWantReadError):
                return step()
            self._socket.sendall(self._said.read())
            piece = self._socket.recv(10_000)
            if piece == b"":
                raise ConnectionError("the server hung up")
            self._heard.write(piece)


def _is_let_in(served: Served) -> bool:
    with suppress(ConnectionError), TlsTalk(served) as talk:
        return "200 OK" in talk.ask(LIVE)
    return False
