"""What the supervisor knows of the retriever: listening, ready, slow, gone."""

import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest
from structlog.testing import capture_logs

from nearline.ports import free_ports_in_a_row
from nearline.up import retriever_probe
from nearline.up.retriever_probe import RetrieverProbe, RetrieverProbes
from retriever.settings import ServeSettings
from tests.kit.certificates import Certificate, certificate


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    status = 503

    def __init__(self, certificate: Certificate | None = None, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.asked: list[str] = []
        self.breaks_off = False
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate.certificate_file, certificate.private_key_file)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.answers = Event()
        self.answers.set()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        self.server.asked.append(self.path)
        self.server.answers.wait()
        if self.server.breaks_off:
            return
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *_: object) -> None:
        pass


@contextmanager
def _serving(certificate: Certificate | None = None, port: int = 0) -> Iterator[_Server]:
    with _Server(certificate, port) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.answers.set()
        server.shutdown()
        thread.join()


@contextmanager
def _servings_in_a_row(number: int) -> Iterator[list[_Server]]:
    first_port = free_ports_in_a_row(number)
    with ExitStack() as stack:
        yield [stack.enter_context(_serving(port=first_port + index)) for index in range(number)]


def _probes(shared: _Server, first: _Server) -> RetrieverProbes:
    """Of two processes."""
    serve = ServeSettings(port=shared.server_port, workers=2, worker_port=first.server_port)
    return RetrieverProbes(serve, ["serve-0", "serve-1"])


def _look_at_all(probes: RetrieverProbes) -> None:
    for _ in range(3):
        probes.look()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retriever_probe, "_EVERY_S", 0.0)
    monkeypatch.setattr(retriever_probe, "_TIMEOUT_S", 0.2)


def test_no_answer_hides_nothing_and_a_closed_port_does() -> None:
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
        server.breaks_off = True
        server.answers.set()
        probe.look()
        assert (probe.listens, probe.ready) == (True, True), "it may be one of several processes"
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


class TestSeveralProcesses:
    """One server stands for the port that they share, and one for the port of each of them."""

    @pytest.fixture
    def shared(self) -> Iterator[_Server]:
        with _serving() as server:
            server.status = 200
            yield server

    def test_it_is_ready_when_all_of_them_are(self, shared: _Server) -> None:
        with _servings_in_a_row(2) as (first, second):
            probes = _probes(shared, first)
            first.status = 200
            _look_at_all(probes)
            assert (probes.listens, probes.ready) == (True, False)
            second.status = 200
            _look_at_all(probes)
            assert (probes.listens, probes.ready) == (True, True)
        _look_at_all(probes)
        assert (probes.listens, probes.ready) == (True, False), "they are away, but somebody answers at the shared port"

    def test_one_look_asks_one_of_them(self, shared: _Server) -> None:
        """Several that are frozen may not hold up the supervisor one after the other."""
        with _servings_in_a_row(2) as (first, second):
            probes = _probes(shared, first)
            for _ in range(3):
                probes.look()
            assert [len(server.asked) for server in (shared, first, second)] == [1, 1, 1]

    def test_each_has_an_address_of_its_own(self, shared: _Server) -> None:
        serve = ServeSettings(port=shared.server_port, grpc_port=7000, workers=2, worker_port=9100)
        probes = RetrieverProbes(serve, ["serve-0", "serve-1"])
        assert probes.worker_urls == {"serve-0": "http://127.0.0.1:9100", "serve-1": "http://127.0.0.1:9101"}
        assert (probes.url, probes.grpc) == (f"http://127.0.0.1:{shared.server_port}", "127.0.0.1:7000")

    def test_a_process_alone_has_none(self, shared: _Server) -> None:
        probes = RetrieverProbes(ServeSettings(port=shared.server_port), ["serve"])
        probes.look()
        assert (probes.worker_urls, probes.listens, probes.ready) == ({}, True, True)
