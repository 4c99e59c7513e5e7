"""The sockets: bound before the URL is announced, and closed at the end."""

import socket
from threading import Event
from typing import Any, cast

import pytest

from retriever.errors import CannotListen
from retriever.http import server
from retriever.serving import serve
from retriever.settings import ServeSettings
from tests.kit.retrievers import RetrieverSetup, Served


def test_a_free_port_is_told_and_given_back() -> None:
    with Served(RetrieverSetup(warm=False)) as served:
        port = int(served.url.rpartition(":")[2])
        assert served.url == f"http://127.0.0.1:{port}"
        with socket.create_connection(("127.0.0.1", port), 5):
            pass
    with socket.socket() as again:
        assert again.connect_ex(("127.0.0.1", port)) != 0


def test_pieces_of_an_answer_do_not_wait_for_each_other() -> None:
    with (
        server.listen("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname(), 5),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("way", ["http", "grpc"])
def test_a_taken_port_is_named(way: str) -> None:
    with Served(RetrieverSetup(warm=False)) as served:
        taken = int((served.url if way == "http" else served.grpc).rpartition(":")[2])
        with pytest.raises(CannotListen, match=f"127.0.0.1 port {taken}.*: Address already in use; choose another"):
            _serve_again(served, **({"port": taken} if way == "http" else {"port": 0, "grpc_port": taken}))


def test_a_host_of_another_machine_is_named() -> None:
    with Served(RetrieverSetup(warm=False)) as served, pytest.raises(CannotListen, match=r"192.0.2.1 port 0"):
        _serve_again(served, host="192.0.2.1", port=0)


def _serve_again(served: Served, **settings: Any) -> None:
    retriever = cast(Any, served.retriever.under_test)
    serve(
        retriever,
        served.feed,
        served.retriever.status,
        ServeSettings(**settings),
        on_listening=lambda _: None,
        stop=Event(),
    )
