"""What the supervisor knows of the retriever: listening, ready, slow, gone."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest

from nearline import readiness
from nearline.readiness import Probe


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    status = 503

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = Event()
        self.answers.set()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        self.server.answers.wait()
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *_: object) -> None:
        pass


@contextmanager
def _serving() -> Iterator[_Server]:
    with _Server() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.answers.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_EVERY_S", 0.0)
    monkeypatch.setattr(readiness, "_TIMEOUT_S", 0.2)


def test_a_slow_answer_hides_nothing_and_a_closed_port_does() -> None:
    with _serving() as server:
        probe = Probe("127.0.0.1", server.server_port)
        assert (probe.listens, probe.ready) == (False, False)
        probe.look()
        assert (probe.listens, probe.ready) == (True, False)
        server.status = 200
        probe.look()
        assert (probe.listens, probe.ready) == (True, True)
        server.answers.clear()
        probe.look()
        assert (probe.listens, probe.ready) == (True, True), "slow is not gone"
    probe.look()
    assert (probe.listens, probe.ready) == (False, False)
