"""Where a process sends its traces: to a collector that the test plays."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Event, Thread

import pytest

from nearline.settings.settings import TracesSettings
from nearline.traces import traced
from schemas.traces import sent


class Collector(HTTPServer):
    """Keeps what it gets: the path and the body."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[str, bytes]] = []
        self.may_answer = Event()
        self.may_answer.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, body))
        self.server.may_answer.wait(60)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        thread = Thread(target=collector.serve_forever)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()


@pytest.mark.parametrize("by_setting", [True, False])
def test_spans_reach_the_endpoint_before_the_process_ends(
    collector: Collector, by_setting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not by_setting:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    with traced("contexts-0", TracesSettings(endpoint=f"{collector.url}/" if by_setting else None)):
        header = sent("ingest")
    assert header is not None
    (path, body), *_ = collector.got
    assert path == "/v1/traces"
    for part in (b"nearline", b"contexts-0", b"ingest", bytes.fromhex(header.decode().split("-")[1])):
        assert part in body


def test_a_collector_that_does_not_answer_holds_up_no_end(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
    monkeypatch.setattr("nearline.traces._FLUSH_S", 0.05)
    collector.may_answer.clear()
    with traced("contexts-0", TracesSettings(endpoint=collector.url)):
        sent("ingest")
    (flush,) = (thread for thread in threading.enumerate() if thread.name == "flush traces")
    collector.may_answer.set()
    flush.join(60)
    assert len(collector.got) == 1


def test_without_an_endpoint_nothing_is_traced() -> None:
    with traced("contexts-0", TracesSettings()):
        assert sent("ingest") is None
