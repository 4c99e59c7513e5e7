"""The client of the commands: answers as messages, failures as our errors, and nothing heavy imported."""

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Thread

import pytest
from pydantic import SecretStr

from indexer.errors import TierLate
from indexer.tiers import StoredPost
from retriever.client import RetrieverClient
from retriever.errors import NotAllowed, RequestRefused, RetrieverUnavailable
from retriever.reasons import Code, Reason
from schemas.api import RetrieveRequest
from tests.kit.retrievers import RetrieverSetup, Served, asking_member, scored_post

KEY = SecretStr("secret")


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    retriever = RetrieverSetup()
    retriever.in_cold(asking_member("m"), scored_post("a", 0.9), scored_post("../b c", 0.5))
    retriever.in_hot(*(scored_post(f"h{number:04}", 0.1) for number in range(2500)))
    with Served(retriever, api_key=KEY) as served:
        yield served


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[RetrieverClient]:
    with RetrieverClient(served.url, KEY) as client:
        yield client


def test_it_asks_everything(client: RetrieverClient) -> None:
    assert client.retrieve(RetrieveRequest(member_id="m", k=2)).post_ids == ["a", "../b c"]
    assert client.post("../b c").cold.present
    assert client.status().generation == "test-0"
    assert client.hot_positions().generation == "test-0"
    assert client.ready().ready
    assert [post.post_id for post in client.hot_posts()] == [f"h{number:04}" for number in range(2500)]


def test_a_request_that_is_refused_says_why(client: RetrieverClient) -> None:
    with pytest.raises(RequestRefused, match="text: there is nothing to encode"):
        client.retrieve(RetrieveRequest(text="  "))


def test_an_outage_is_an_outage(client: RetrieverClient, served: Served) -> None:
    served.retriever.cold.fails = True
    try:
        with pytest.raises(RetrieverUnavailable, match="a tier cannot answer now"):
            client.post("a")
    finally:
        served.retriever.cold.fails = False


def test_hot_posts_that_break_off_are_not_taken_for_all(client: RetrieverClient, served: Served) -> None:
    tier = served.retriever.hot.tier
    posts = list(tier.scroll_posts())

    def break_off(**_: object) -> Iterator[StoredPost]:
        yield from posts[:1500]
        raise TierLate("for this test")

    tier.scroll_posts = break_off
    try:
        with pytest.raises(RetrieverUnavailable):
            list(client.hot_posts())
    finally:
        del tier.scroll_posts
    assert len(list(client.hot_posts())) == 2500


def test_ready_says_what_is_missing(client: RetrieverClient, served: Served) -> None:
    served.retriever.feed_problem = Reason(Code.HOT_CATCHING_UP, "5 records to go")
    try:
        assert client.ready().problems == ["5 records to go"]
    finally:
        served.retriever.feed_problem = None


def test_the_wrong_key_is_not_allowed(served: Served) -> None:
    with RetrieverClient(served.url) as client:
        with pytest.raises(NotAllowed, match="API key"):
            client.status()
        with pytest.raises(NotAllowed, match="API key"):
            list(client.hot_posts())
        assert client.ready().ready, "health needs no key"


def test_nobody_there_is_one_sentence() -> None:
    with Served(RetrieverSetup(warm=False)) as served:
        url = served.url
    with RetrieverClient(url) as client:
        with pytest.raises(RetrieverUnavailable, match=f"the retriever at {url} does not answer"):
            client.status()
        with pytest.raises(RetrieverUnavailable, match="does not answer"):
            list(client.hot_posts())


def test_nothing_heavy_comes_along() -> None:
    heavy = "torch faiss transformers fastapi uvicorn qdrant_client httpx confluent_kafka numpy indexer encoders"
    program = f"import sys, retriever.client; print(*sorted(set({heavy.split()}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_connection_that_the_server_closed_is_opened_again() -> None:
    client: RetrieverClient | None = None
    port = 0
    for _ in range(2):
        retriever = RetrieverSetup(warm=False)
        with Served(retriever, port=port) as served:
            port = int(served.url.rpartition(":")[2])
            client = client or RetrieverClient(served.url)
            assert not client.ready().ready
    assert client is not None
    client.close()


def test_a_connection_that_the_server_drops_when_it_is_used_again_is_opened_again() -> None:
    ready = b'HTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\n{"ready":true,"problems":[]}'

    def talk(listening: socket.socket) -> None:
        with listening.accept()[0] as first:
            first.recv(10_000)
            first.sendall(ready)
            first.recv(10_000)
        with listening.accept()[0] as second:
            second.recv(10_000)
            second.sendall(ready)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = Thread(target=talk, args=(listening,))
        thread.start()
        with RetrieverClient(f"http://127.0.0.1:{listening.getsockname()[1]}") as client:
            assert client.ready().ready
            assert client.ready().ready
        thread.join()


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8080",
        "ftp://a",
        "http://",
        "http://a:b",
        "http://[",
        "",
        "http://a..b",
        "http://.a",
        f"http://{'a' * 64}",
        "http://a b",
        "http://a/b c",
        "http://a/räume",
    ],
)
def test_an_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(RetrieverUnavailable, match="is not the address of a retriever"):
        RetrieverClient(url)


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The URL of a server that says this once and hangs up."""

    def talk(listening: socket.socket) -> None:
        with listening.accept()[0] as connection:
            connection.recv(10_000)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = Thread(target=talk, args=(listening,))
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "not a retriever of this version"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\noh!", "answered with status 502"),
        (b"+PONG\r\n", "does not answer"),
        (b"", "does not answer"),
    ],
)
def test_a_server_of_another_kind_is_named(answer: bytes, words: str) -> None:
    with (
        answering(answer) as url,
        RetrieverClient(url) as client,
        pytest.raises(RetrieverUnavailable, match=words),
    ):
        client.status()


def test_half_a_list_is_not_taken_for_the_whole() -> None:
    line = b'{"post_id":"a","revision":1,"author_id":"m","created_at":"2026-01-05T10:00:00Z"}\n'
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with answering(head + f"{len(line):x}".encode() + b"\r\n" + line + b"\r\n") as url, RetrieverClient(url) as client:
        posts = client.hot_posts()
        assert next(posts).post_id == "a"
        with pytest.raises(RetrieverUnavailable, match="does not answer"):
            next(posts)


def test_one_that_never_answers_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            RetrieverClient(url, timeout_s=0.1) as client,
            pytest.raises(RetrieverUnavailable, match="did not answer in time"),
        ):
            client.status()


def test_more_files_than_select_can_tell_apart_are_no_trouble(served: Served) -> None:
    """select() knows descriptors up to 1023 alone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard > 1100
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        while stack.enter_context(open(os.devnull)).fileno() < 1024:
            pass
        client = stack.enter_context(RetrieverClient(served.url, KEY))
        for _ in range(2):
            assert client.status().generation == "test-0"


@pytest.mark.parametrize("value", ["top-secret\n", "top-\rsecret", "top-secret\x00", "top-secret\x7f"])
def test_a_key_that_no_header_can_carry_is_not_printed(value: str) -> None:
    with pytest.raises(NotAllowed, match="the API key holds a character that a header cannot carry") as caught:
        RetrieverClient("http://127.0.0.1:1", SecretStr(value))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
