"""Sends the same few requests over many HTTP connections, at a rate or as fast as they are answered. Each request costs
it little work, because it shares the cores with the server that it measures.
"""

import selectors
import socket
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self

_BUFFER_BYTES: Final = 256 * 1024


class Answer(NamedTuple):
    status: int
    at_s: float
    """When its last byte came, on the clock of `perf_counter`."""
    took_s: float
    """From sending the request to the last byte."""


class Load:
    """Connections to one server. Each is opened when it is first needed, because the server closes silent ones."""

    def __init__(self, host: str, port: int, requests: Sequence[bytes]) -> None:
        self._requests = requests
        self._sent = 0
        self._selector = selectors.DefaultSelector()
        self._address = (host, port)
        self._idle: list[_Connection] = []
        self._opened: list[_Connection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._selector.close()
        for connection in self._opened:
            connection.socket.close()

    def run(self, seconds: float, at_once: int, rate: float | None = None) -> list[Answer]:
        """At most `at_once` requests at the same time. Without a rate the next one is sent when one is answered."""
        answers: list[Answer] = []
        start, num_sent = time.perf_counter(), 0
        while True:
            now = time.perf_counter()
            sending = now < start + seconds
            while sending and num_sent - len(answers) < at_once and (rate is None or num_sent < (now - start) * rate):
                self._connection().send(self._next())
                num_sent += 1
            if not sending and num_sent == len(answers):
                return answers
            is_full = num_sent - len(answers) == at_once
            for key, _ in self._selector.select(1.0 if is_full or not sending else self._pause(start, num_sent, rate)):
                if answer := key.data.receive():
                    answers.append(answer)
                    self._idle.append(key.data)

    def _pause(self, start: float, num_sent: int, rate: float | None) -> float:
        """Seconds until the next request is due."""
        return 0.0 if rate is None else max(0.0, start + num_sent / rate - time.perf_counter())

    def _connection(self) -> "_Connection":
        if self._idle:
            return self._idle.pop()
        connection = _Connection(*self._address)
        self._opened.append(connection)
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        return connection

    def _next(self) -> bytes:
        self._sent += 1
        return self._requests[self._sent % len(self._requests)]


class _Connection:
    """Counts the bytes of an answer without storing them."""

    _buffer: Final = bytearray(_BUFFER_BYTES)

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sent_s = 0.0
        self._status = 0
        self._left = 0

    def send(self, request: bytes) -> None:
        self._sent_s = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> Answer | None:
        """The answer, when its last byte has come; None before."""
        size = self.socket.recv_into(self._buffer)
        if size == 0:
            raise ConnectionError("the server hung up")
        if self._status == 0:
            head, _, _ = bytes(self._buffer[:size]).partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            self._status, self._left = int(head[9:12]), len(head) + 4 + length
        self._left -= size
        if self._left > 0:
            return None
        now, status, self._status = time.perf_counter(), self._status, 0
        return Answer(status, now, now - self._sent_s)
