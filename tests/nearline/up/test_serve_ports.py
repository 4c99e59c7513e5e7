"""The ports of the retriever, before any of its processes is started."""

import socket
from typing import Any

import pytest

from nearline.errors import StartFailed
from nearline.ports import free_ports, free_ports_in_a_row, is_free
from nearline.up.serve_ports import named_ports
from retriever.settings import ServeSettings


def test_all_ports_get_numbers() -> None:
    with named_ports(ServeSettings(port=0)) as serve:
        assert all((serve.port, serve.grpc_port))
        assert serve.worker_port is None
    with named_ports(ServeSettings(port=0, workers=3)) as serve:
        numbers = {serve.port, serve.grpc_port, *(serve.own_port(worker) for worker in range(3))}
        assert len(numbers) == 5
        assert not numbers & {0, None}


def test_ports_that_were_chosen_stay() -> None:
    first = free_ports_in_a_row(4)
    chosen = ServeSettings(port=first, grpc_port=first + 1, workers=2, worker_port=first + 2)
    with named_ports(chosen) as serve:
        assert serve == chosen


def test_ports_that_workers_share_are_held_and_those_of_one_process_are_left_to_it() -> None:
    with named_ports(ServeSettings(port=0, workers=2)) as serve:
        assert [is_free(port) for port in (serve.port, serve.port_of_grpc)] == [False, False]
        assert serve.worker_port is not None
        assert is_free(serve.worker_port)
    with named_ports(ServeSettings(port=0)) as serve:
        assert [is_free(port) for port in (serve.port, serve.port_of_grpc)] == [True, True]


@pytest.mark.parametrize(
    ("host", "reason"),
    [("no.such.host", "Name or service not known"), ("a..b", "no name of a machine"), ("192.0.2.1", "Cannot")],
)
@pytest.mark.parametrize("port", [0, 8080])
def test_a_host_that_is_not_this_machine_ends_the_start(
    host: str, reason: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = socket.getaddrinfo

    def ask_no_server(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "no.such.host":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ask(name, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", ask_no_server)
    sentence = f"^cannot listen on {host} port .*: {reason}.*; name an address of this machine as the host$"
    with pytest.raises(StartFailed, match=sentence), named_ports(ServeSettings(host=host, port=port)):
        pass


@pytest.mark.parametrize("worker", [0, 1])
def test_a_port_of_a_worker_that_is_taken_ends_the_start(worker: int) -> None:
    first = free_ports_in_a_row(2)
    settings = ServeSettings(port=0, workers=2, worker_port=first)
    sentence = f"^cannot listen on 127.0.0.1 port {first + worker}: .*; choose another serve.worker_port$"
    with (
        socket.create_server(("127.0.0.1", first + worker)),
        pytest.raises(StartFailed, match=sentence),
        named_ports(settings),
    ):
        pass


def test_no_worker_alone_is_asked_at_a_port_that_all_share() -> None:
    port = free_ports(1)[0]
    with (
        pytest.raises(StartFailed, match=f"port {port}: .*; choose another serve.worker_port$"),
        named_ports(ServeSettings(port=port, grpc_port=0, workers=2, worker_port=port)),
    ):
        pass
