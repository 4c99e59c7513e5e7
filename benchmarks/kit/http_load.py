"""HTTP/1.1 for `load.py`: one request at a time on each connection. Counts the bytes of an answer without storing them.
A status of 200 is a good answer."""

import json
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from benchmarks.kit.load import Answer

_BUFFER_BYTES: Final = 256 * 1024


def connecting(url: str) -> Callable[[], "HttpConnection"]:
    address = urlsplit(url)
    return lambda: HttpConnection(str(address.hostname), address.port or 0)


def post(path: str, body: Mapping[str, Any]) -> bytes:
    """The bytes of a request with a JSON body."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    return b"%b%d\r\n\r\n%b" % (head.encode(), len(content), content)


class HttpConnection:
    _buffer: Final = bytearray(_BUFFER_BYTES)

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.has_room = True
        self._sent_s = 0.0
        self._status = 0
        self._left = 0
        self._partial = False

    def send(self, request: bytes) -> None:
        self.has_room = False
        self._sent_s = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> Sequence[Answer]:
        """The answer, when its last byte has come."""
        size = self.socket.recv_into(self._buffer)
        if size == 0:
            raise ConnectionError("the server hung up")
        if self._status == 0:
            head, _, body = bytes(self._buffer[:size]).partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            self._status, self._left = int(head[9:12]), len(head) + 4 + length
            self._partial = b'"partial":true' in body
        self._left -= size
        if self._left > 0:
            return ()
        now, status, self._status = time.perf_counter(), self._status, 0
        self.has_room = True
        return (Answer(status, now, now - self._sent_s, self._partial),)
