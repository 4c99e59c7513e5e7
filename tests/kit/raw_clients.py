"""Clients that speak HTTP byte by byte, over TCP and TLS, and a gate that holds requests inside the service."""

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Semaphore
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.kit.retrievers import Served
from tests.kit.waiting import until


class Gate:
    """Holds every call of a function until it is opened."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._open = Event()
        self._came = Semaphore(0)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self._came.release()
        assert self._open.wait(30)
        return self._function(*arguments, **named)

    def wait_for(self, number: int) -> None:
        for _ in range(number):
            assert self._came.acquire(timeout=30)

    def open(self) -> None:
        self._open.set()


def ask(served: Served, path: str = "/v1/retrieve") -> httpx.Response:
    with httpx.Client(base_url=served.url, trust_env=False, timeout=30) as http:
        # So long that no question is late by itself, however slow the machine is.
        return (
            http.post(path, json={"member_id": "m", "timeout_ms": 30_000}) if path == "/v1/retrieve" else http.get(path)
        )


class Talk:
    """One connection, byte by byte. Its buffers are small on both sides."""

    def __init__(self, served: Served) -> None:
        address = urlsplit(served.url)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(30)
        self._socket.connect((address.hostname, address.port))

    def __enter__(self) -> "Talk":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def say(self, words: str) -> None:
        self._socket.sendall(words.encode())

    def hear(self) -> str:
        """Reads a whole answer, which may come in pieces. Empty if the server hangs up instead."""
        heard = piece = self._piece()
        while piece and not _is_whole(heard):
            piece = self._piece()
            heard += piece
        return heard

    def hear_all(self) -> str:
        """Until the server hangs up."""
        return "".join(iter(self._piece, ""))

    def drip(self, timeout_s: float = 20.0) -> str:
        """Says one byte after the other until the server has had enough, and returns what it said to that."""
        heard: list[str] = []
        self._socket.settimeout(0.05)

        def hung_up() -> bool:
            try:
                self.say("x")
                heard.append(self._piece())
            except TimeoutError:
                return False
            except ConnectionError:
                return True
            return heard[-1] == ""

        until(hung_up, "the server to hang up", timeout_s)
        return "".join(heard)

    def _piece(self) -> str:
        try:
            return self._socket.recv(10_000).decode()
        except ConnectionResetError:
            return ""


def _is_whole(answer: str) -> bool:
    head, _, body = answer.partition("\r\n\r\n")
    length = head.lower().partition("content-length: ")[2].partition("\r\n")[0]
    return length != "" and len(body) >= int(length)


HEAD = "POST /v1/retrieve HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"


LIVE = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


class TlsTalk:
    """One connection that speaks TLS, piece by piece."""

    def __init__(self, served: Served, first: str = "") -> None:
        """`first` is sent in one piece with the end of the handshake."""
        address = urlsplit(served.url)
        self._socket = socket.create_connection((address.hostname, address.port), 30)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._heard, self._said = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._heard, self._said)
        self._until_done(self._tls.do_handshake)
        self._tls.write(first.encode())
        self._socket.sendall(self._said.read())

    def __enter__(self) -> "TlsTalk":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, words: str) -> str:
        self._tls.write(words.encode())
        self._socket.sendall(self._said.read())
        return self.hear()

    def hear(self) -> str:
        """One whole answer."""
        heard = ""
        while not _is_whole(heard):
            heard += self._until_done(lambda: self._tls.read(10_000)).decode()
        return heard

    def _until_done(self, step: Callable[[], Any]) -> Any:
        while True:
            with suppress(ssl.SSLWantReadError):
                return step()
            self._socket.sendall(self._said.read())
            piece = self._socket.recv(10_000)
            if piece == b"":
                raise ConnectionError("the server hung up")
            self._heard.write(piece)
