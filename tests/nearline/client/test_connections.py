"""How clients reach a retriever: addresses, TLS, keys, several connections, several threads."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nearline import (
    AsyncClient,
    BadCertificate,
    Client,
    NotAllowed,
    Question,
    RequestRefused,
    RetrieverUnavailable,
)
from retriever import nearline_pb2 as pb
from tests.kit.certificates import certificate
from tests.kit.grpc_stand_in import ANSWER, StandIn
from tests.kit.waiting import until


def test_calls_take_the_connections_in_turn(make: type[Client], stand_in: StandIn) -> None:
    with make(stand_in.url, timeout_s=20.0, connections=3) as client:
        for _ in range(6):
            client.retrieve(member_id="m")
    peers = [received.peer for received in stand_in.received]
    assert len(set(peers)) == 3
    assert peers[:3] == peers[3:]


def test_a_retriever_that_comes_back_is_found_again(make: type[Client], unused_url: str) -> None:
    with make(unused_url, connections=1) as client:
        assert client.ready(timeout_s=0.1) is False
        with StandIn(port=int(unused_url.rpartition(":")[2])) as stand_in:
            stand_in.answer(b"\x08\x01")
            until(lambda: client.ready(timeout_s=0.2), "the client to connect again")


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


def test_threads_share_a_client(stand_in: StandIn) -> None:
    def answer(request: Any, _: Any) -> Any:
        return pb.RetrieveResponse(generation=request.member_id)

    stand_in.answer(answer)
    names = [f"m{number}" for number in range(200)]
    with Client(stand_in.url, timeout_s=20.0) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda name: client.retrieve(member_id=name), names))
    assert [answer.generation for answer in answers] == names


def test_coroutines_share_a_client_and_one_that_is_cancelled_disturbs_no_other(stand_in: StandIn) -> None:
    begun = threading.Event()
    released = threading.Event()
    ended = threading.Event()

    def answer(request: Any, context: Any) -> Any:
        if request.member_id == "slow":
            context.add_callback(ended.set)
            begun.set()
            released.wait(20.0)
        return pb.RetrieveResponse(generation=request.member_id)

    async def ask() -> list[str]:
        async with AsyncClient(stand_in.url, timeout_s=20.0) as client:
            slow = asyncio.create_task(client.retrieve(member_id="slow"))
            quick = [client.retrieve(member_id=f"m{number}") for number in range(20)]
            answers = await asyncio.gather(*quick)
            # The retriever never hears of a call that is cancelled before it has arrived there.
            await asyncio.to_thread(until, begun.is_set, "the slow call to arrive")
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
