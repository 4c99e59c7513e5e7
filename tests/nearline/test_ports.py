"""Ports that nobody listens on, of the range that was asked for."""

import errno
import socket

import pytest

from nearline.errors import StartFailed
from nearline.ports import RANGE_VARIABLE, free_ports, free_ports_in_a_row, held, listening_port
from retriever.http.server import listen


def test_free_ports_are_of_the_range_and_none_is_taken_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_ports(1)[0]
    monkeypatch.setenv(RANGE_VARIABLE, f"{first}-{first}")
    assert free_ports(1) == [first]
    with socket.create_server(("127.0.0.1", first)), pytest.raises(StartFailed, match=f"no free port between {first} "):
        free_ports(1)


def test_ports_in_a_row_are_all_free(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_ports_in_a_row(4)
    monkeypatch.setenv(RANGE_VARIABLE, f"{first}-{first + 3}")
    assert free_ports_in_a_row(3) in (first, first + 1)
    with socket.create_server(("127.0.0.1", first + 1)):
        assert free_ports_in_a_row(2) == first + 2
        with pytest.raises(StartFailed, match=f"no 3 free ports in a row between {first} "):
            free_ports_in_a_row(3)


class TestHeldPorts:
    """No instance may get half of the questions of another one."""

    def test_they_are_refused_to_others_whether_anybody_listens_or_not(self) -> None:
        port = free_ports(1)[0]
        with held("127.0.0.1", [port]):
            self._is_refused(port)
            with listen("127.0.0.1", port, shared=True), listen("127.0.0.1", port, shared=True):
                self._is_refused(port)
            self._is_refused(port)
        assert listening_port("127.0.0.1", port) == port

    def test_one_that_others_share_cannot_be_held(self) -> None:
        port = free_ports(1)[0]
        with (
            listen("127.0.0.1", port, shared=True),
            pytest.raises(StartFailed, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"),
            held("127.0.0.1", [port]),
        ):
            pass

    def test_nobody_connects_to_one_at_which_nobody_listens(self) -> None:
        port = free_ports(1)[0]
        with held("127.0.0.1", [port]), socket.socket() as client:
            assert client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED

    def _is_refused(self, port: int) -> None:
        sentence = f"^cannot listen on 127.0.0.1 port {port}: Address already in use; choose another serve.port"
        with pytest.raises(StartFailed, match=sentence):
            listening_port("127.0.0.1", port)
        with pytest.raises(StartFailed, match=sentence), held("127.0.0.1", [port]):
            pass


@pytest.mark.parametrize("text", ["", "20000", "a-b", "30000-20000", "1-70000"])
def test_a_range_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RANGE_VARIABLE, text)
    with pytest.raises(StartFailed, match="write it as 20000-25999"):
        free_ports(1)
