"""Sends requests over many connections, at a rate or as fast as they are answered, and notes how each was answered.

One thread and one selector: each request costs little work, because this process shares the cores with the server that
it measures. What is sent and how an answer looks is the connections' business (`http_load.py`, `grpc_load.py`).
"""

import selectors
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self

import numpy as np

_END_S: Final = 30.0
"""How long the answers may take that are still missing at the end of a run."""


class Answer(NamedTuple):
    status: int
    """Of HTTP, or of gRPC. Both clients say which number is a good answer."""
    at_s: float
    """When its last byte came, on the clock of `perf_counter`."""
    took_s: float
    """From sending the request to the last byte."""
    partial: bool = False
    """The answer says itself that something is missing."""


class Connection(Protocol):
    """One connection to the server."""

    socket: socket.socket

    @property
    def has_room(self) -> bool:
        """Whether one more request can be sent now."""
        ...

    def send(self, request: bytes) -> None: ...

    def receive(self) -> Sequence[Answer]:
        """Called when bytes have come in: the answers that they complete."""
        ...


class Load:
    """What is sent to one server."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect

    def run(self, requests: Iterator[bytes], seconds: float, at_once: int, rate: float | None = None) -> list[Answer]:
        """At most `at_once` requests at the same time. Without a rate the next one is sent when one is answered. Ends
        before the time is over when there is no further request. Waits for the last answers."""
        with _Connections(self._connect) as connections:
            answers: list[Answer] = []
            start, num_sent, sending = time.perf_counter(), 0, True
            while True:
                now = time.perf_counter()
                sending = sending and now < start + seconds
                while (
                    sending and num_sent - len(answers) < at_once and (rate is None or num_sent < (now - start) * rate)
                ):
                    request = next(requests, None)
                    if request is None:
                        sending = False
                        break
                    connections.send(request)
                    num_sent += 1
                if not sending and num_sent == len(answers):
                    return answers
                if now > start + seconds + _END_S:
                    raise RuntimeError(f"{num_sent - len(answers)} requests were never answered")
                is_full = num_sent - len(answers) == at_once
                wait_s = 1.0 if is_full or not sending else _pause_s(start, num_sent, rate)
                answers += connections.receive(wait_s)


class _Connections:
    """Those of one run. Each is opened when it is first needed. None outlives the run: a server closes connections that
    are silent for long."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._selector = selectors.DefaultSelector()
        self._with_room: list[Connection] = []
        self._opened: list[Connection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._selector.close()
        for connection in self._opened:
            connection.socket.close()

    def send(self, request: bytes) -> None:
        if not self._with_room:
            connection = self._connect()
            self._opened.append(connection)
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)
            self._with_room.append(connection)
        connection = self._with_room[-1]
        connection.send(request)
        if not connection.has_room:
            self._with_room.pop()

    def receive(self, wait_s: float) -> list[Answer]:
        """The answers that are complete within that time, as soon as anything comes."""
        answers: list[Answer] = []
        for key, _ in self._selector.select(wait_s):
            had_room = key.data.has_room
            answers += key.data.receive()
            if key.data.has_room and not had_room:
                self._with_room.append(key.data)
        return answers


def _pause_s(start: float, num_sent: int, rate: float | None) -> float:
    """Seconds until the next request is due."""
    return 0.0 if rate is None else max(0.0, start + num_sent / rate - time.perf_counter())


def percentile_s(answers: Sequence[Answer], percent: float) -> float:
    """Of the times that the answers took; infinity without answers."""
    return float(np.percentile([answer.took_s for answer in answers], percent)) if answers else float("inf")
