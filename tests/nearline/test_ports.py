"""Ports that nobody listens on, of the range that was asked for."""

import socket

import pytest

from nearline.errors import StartFailed
from nearline.ports import RANGE_VARIABLE, free_ports


def test_free_ports_are_of_the_range_and_none_is_taken_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_ports(1)[0]
    monkeypatch.setenv(RANGE_VARIABLE, f"{first}-{first}")
    assert free_ports(1) == [first]
    with socket.create_server(("127.0.0.1", first)), pytest.raises(StartFailed, match=f"no free port between {first} "):
        free_ports(1)


@pytest.mark.parametrize("text", ["", "20000", "a-b", "30000-20000", "1-70000"])
def test_a_range_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RANGE_VARIABLE, text)
    with pytest.raises(StartFailed, match="write it as 20000-25999"):
        free_ports(1)
