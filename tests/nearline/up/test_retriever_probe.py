"""What the supervisor knows of the retriever: listening, ready, slow, gone."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest
from structlog.testing import capture_logs

from nearline.up import retriever_probe
from nearline.up.retriever_probe import RetrieverProbe
from tests.kit.certificates import Certificate, certificate


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    status = 503

    def __init__(self, certificate: Certificate | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate.certificate_file, certificate.private_key_file)
            self.socket = context.wrap_socket(self.socket, server_side=True)
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
def _serving(certificate: Certificate | None = None) -> Iterator[_Server]:
    with _Server(certificate) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.answers.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retriever_probe, "_EVERY_S", 0.0)
    monkeypatch.setattr(retriever_probe, "_TIMEOUT_S", 0.2)


def test_a_slow_answer_hides_nothing_and_a_closed_port_does() -> None:
    with _serving() as server:
        probe = RetrieverProbe("127.0.0.1", server.server_port)
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


def test_only_the_certificate_of_its_own_file_is_believed_and_that_is_said_once(tmp_path: Path) -> None:
    own, other = (certificate(tmp_path, name) for name in ("own.example", "other.example"))
    with _serving(other) as server, capture_logs() as log:
        server.status = 200
        probe = RetrieverProbe("127.0.0.1", server.server_port, own.certificate_file)
        for _ in range(2):
            probe.look()
            assert (probe.url, probe.listens, probe.ready) == (f"https://127.0.0.1:{server.server_port}", False, False)
        # The file is renewed, and the retriever shows that already.
        own.certificate_file.write_bytes(other.certificate_file.read_bytes())
        probe.look()
        probe.look()
        assert probe.ready
    assert [line["event"] for line in log] == ["the certificate at the retriever's port is not believed"]
