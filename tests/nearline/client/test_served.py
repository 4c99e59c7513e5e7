"""The clients against the real service: what one side sends, the other side understands."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from nearline import Client, NotAllowed, Question, RequestRefused, Trace
from nearline.client import messages
from retriever.client import RetrieverClient
from retriever.http.tls import trusting_authorities
from retriever.reasons import Code, Reason
from schemas.api import RetrieveRequest
from tests.kit.certificates import certificate
from tests.kit.data.embeddings import DIMENSION, GENERATION
from tests.kit.retrievers import RetrieverSetup, Served, asking_member, scored_post
from tests.kit.waiting import until

KEY = "secret"
TIMEOUT_S = 20.0
"""Longer than a busy machine needs."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    """With a key and TLS, and the file of the authority that signed its certificate."""
    files = certificate(tmp_path_factory.mktemp("tls"), "127.0.0.1")
    retriever = RetrieverSetup()
    retriever.in_cold(asking_member("m"), scored_post("a", 0.9, language="en"), scored_post("ü b", 0.5, author="x"))
    retriever.in_hot(scored_post("h", 0.7))
    with Served(retriever, api_key=SecretStr(KEY), **files.settings()) as served:
        yield served, files.ca_file


@pytest.fixture
def client(make: type[Client], served: tuple[Served, Path]) -> Iterator[Client]:
    service, ca_file = served
    with make(f"https://{service.grpc}", api_key=KEY, ca_file=ca_file, timeout_s=TIMEOUT_S) as client:
        yield client


def test_a_member_gets_the_same_candidates_as_over_http(client: Client, served: tuple[Served, Path]) -> None:
    service, ca_file = served
    with RetrieverClient(service.url, SecretStr(KEY), tls=trusting_authorities(ca_file)) as http:
        expected = http.retrieve(RetrieveRequest(member_id="m"))
    answer = client.retrieve(member_id="m", trace=Trace(request_id="r-1"))
    assert answer.post_ids == tuple(expected.post_ids) == ("a", "h", "ü b")
    assert answer.scores == pytest.approx(expected.scores)
    assert answer.tiers == tuple(expected.tiers)
    assert (answer.generation, answer.partial, answer.request_id) == (GENERATION, False, "r-1")


def test_every_way_to_ask_is_answered(client: Client) -> None:
    vector = [1.0] + [0.0] * (DIMENSION - 1)
    questions = [Question(text="t"), Question(vector=vector, generation=GENERATION), Question(member_id="m", k=1)]
    answers = client.retrieve_batch(questions)
    assert [answer.post_ids[0] for answer in answers] == ["a"] * 3
    assert [len(answer.post_ids) for answer in answers] == [3, 3, 1]
    assert client.retrieve(post_ids=["a"]).post_ids == client.similar(["a"]).post_ids == ("h", "ü b")
    first, nothing = client.vectors(["a", "nobody"]).posts
    assert first is not None
    assert (first.post_id, len(first.vector), nothing) == ("a", DIMENSION, None)
    assert client.status().generation == GENERATION


def test_columns_and_filters_are_understood(client: Client) -> None:
    answer = client.retrieve(
        member_id="m",
        exclude_posts=["h"],
        only_authors=["x", "author"],
        columns=["author", "created_at", "revision", "language"],
    )
    assert answer.post_ids == ("a", "ü b")
    assert answer.authors == ("author", "x")
    assert answer.languages is not None
    assert answer.languages[0] == "en"
    assert answer.created_at is not None
    assert answer.revisions is not None


@pytest.mark.parametrize(
    ("question", "code", "words"),
    [
        ({"member_id": "m", "k": 0}, "bad_field", "k: "),
        ({"member_id": "m", "k": 3000}, "bad_field", "k: "),
        ({"member_id": "m", "text": "t"}, "bad_field", "exactly one of"),
        ({}, "bad_field", "exactly one of"),
        ({"vector": [1.0, float("nan")]}, "bad_field", "vector"),
        ({"member_id": "m", "exclude_posts": [str(number) for number in range(10_001)]}, "bad_field", "exclude_posts"),
        ({"member_id": "m", "generation": "none"}, "unknown_generation", "none"),
    ],
)
def test_a_refusal_has_a_code_and_names_the_field(
    client: Client, question: dict[str, Any], code: str, words: str
) -> None:
    with pytest.raises(RequestRefused, match=words) as caught:
        client.retrieve(**question)
    assert (caught.value.code, caught.value.request_id is not None) == (code, True)


def test_a_request_that_is_too_large_is_refused_and_disturbs_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "t" * (9 * 1024 * 1024)
    with pytest.raises(RequestRefused, match="send fewer ids or a shorter text") as refused:
        client.retrieve(text=text)
    assert refused.value.code == "too_large"
    # A retriever that takes less than this client knows: gRPC refuses for it, and says no code of ours.
    monkeypatch.setattr(messages, "MAX_REQUEST_BYTES", 2 * len(text))
    with pytest.raises(RequestRefused, match="larger than max"):
        client.retrieve(text=text)
    assert client.retrieve(member_id="m").post_ids


def test_the_wrong_key_is_not_allowed_but_health_needs_none(make: type[Client], served: tuple[Served, Path]) -> None:
    service, ca_file = served
    for key in (None, "wrong"):
        with make(f"https://{service.grpc}", api_key=key, ca_file=ca_file, timeout_s=TIMEOUT_S) as client:
            with pytest.raises(NotAllowed, match="API key") as caught:
                client.retrieve(member_id="m")
            assert caught.value.code == "unauthenticated"
            assert client.ready(timeout_s=TIMEOUT_S)


def test_a_key_may_have_any_letter(make: type[Client]) -> None:
    retriever = RetrieverSetup()
    retriever.in_cold(asking_member("m"), scored_post("a", 0.9))
    with Served(retriever, api_key=SecretStr("schlüssel")) as service:
        with make(service.grpc, api_key="schlüssel", timeout_s=TIMEOUT_S) as client:
            assert client.retrieve(member_id="m").post_ids == ("a",)
        with make(service.grpc, api_key="schlussel", timeout_s=TIMEOUT_S) as client, pytest.raises(NotAllowed):
            client.retrieve(member_id="m")


def test_ready_follows_the_retriever(client: Client, served: tuple[Served, Path]) -> None:
    served[0].retriever.feed_problem = Reason(Code.HOT_CATCHING_UP, "5 records to go")
    try:
        until(lambda: not client.ready(timeout_s=TIMEOUT_S), "the health service to hear of it")
    finally:
        served[0].retriever.feed_problem = None
    until(lambda: client.ready(timeout_s=TIMEOUT_S), "the health service to hear of it")
