"""A gRPC client that breaks the manners of stock ones: it writes the frames of HTTP/2 itself (RFC 9113)."""

import socket
from collections.abc import Mapping
from typing import Final

from tests.kit.retrievers import Served

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_INITIAL_WINDOW: Final = b"\0\4"
_POST_OVER_HTTP: Final = b"\x83\x86"
"""`:method POST` and `:scheme http`, which have numbers in HTTP/2's own table."""


class RawCall:
    """One call on a connection of its own. `window`: so many bytes the server may send as its answer."""

    def __init__(self, served: Served, method: str, *, window: int = 65_535) -> None:
        host, _, port = served.grpc.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 30)
        headers = {":path": method, ":authority": "test", "te": "trailers", "content-type": "application/grpc"}
        self.socket.sendall(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, _INITIAL_WINDOW + window.to_bytes(4, "big"))
            + _frame(_HEADERS, _END_HEADERS, 1, _POST_OVER_HTTP + _literals(headers))
        )

    def __enter__(self) -> "RawCall":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def say(self, message: bytes) -> None:
        """The whole message, and that there is no further one."""
        self.socket.sendall(_frame(_DATA, _END_STREAM, 1, _prefix(len(message)) + message))

    def say_half(self, num_bytes: int) -> None:
        """The beginning of a message of so many bytes."""
        self.socket.sendall(_frame(_DATA, 0, 1, _prefix(num_bytes) + b"half"))

    def hear_until(self, words: bytes) -> bytes:
        """What the server says, up to these words and a little further."""
        heard = b""
        while words not in heard:
            heard += (piece := self.socket.recv(10_000))
            assert piece, f"the server hung up and did not say {words!r}, but {heard!r}"
        return heard


def _prefix(num_bytes: int) -> bytes:
    return b"\0" + num_bytes.to_bytes(4, "big")


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def _literals(headers: Mapping[str, str]) -> bytes:
    """Without compression."""
    pairs = ((name.encode(), value.encode()) for name, value in headers.items())
    return b"".join(b"\0%c%b%c%b" % (len(name), name, len(value), value) for name, value in pairs)
