"""What `benchmarks/operators.py` makes of what it has asked."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError

import pytest

from benchmarks import operators
from benchmarks.kit import symptoms
from benchmarks.kit.operators.asking import metrics_urls, num_series, p99_s
from benchmarks.kit.operators.page import page

MAKEFILE = Path(__file__).parents[2] / "Makefile"


def test_comments_are_no_series() -> None:
    assert num_series('# HELP a b\n# TYPE a gauge\na 1\na{b="c"} 2\n\n') == 2


def test_every_process_is_asked(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    for name, targets in (("monitor", ["127.0.0.1:1"]), ("serve", ["127.0.0.1:2", "127.0.0.1:3"])):
        (tmp_path / "metrics" / f"{name}.json").write_text(json.dumps([{"targets": targets, "labels": {}}]))
    assert metrics_urls(tmp_path) == [f"http://127.0.0.1:{port}/metrics" for port in (1, 2, 3)]


def test_each_answer_counts() -> None:
    asked: list[int] = []
    assert p99_s(lambda: asked.append(1), 7) >= 0
    assert len(asked) == 7


def test_without_prometheus_that_is_said_and_an_alert_that_does_not_come_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(symptoms, "find", lambda _: None)
    assert list(operators._measured(tmp_path, ["alert"], operators.QUICK, [])) == []
    assert capsys.readouterr().out.startswith("alert: not measured: prometheus is not here")

    def silent(*_: object) -> None:
        raise RuntimeError("waited 300 s for the alert")

    monkeypatch.setattr(operators, "produce", silent)
    (tmp_path / "again").mkdir()
    with pytest.raises(RuntimeError, match="waited"):
        list(operators._measured(tmp_path / "again", ["alert"], operators.QUICK, []))


@pytest.fixture
def broken_page() -> Iterator[Any]:
    """An instance whose monitor answers 503."""

    class Broken(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503)

    with ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield SimpleNamespace(instance=SimpleNamespace(monitor=f"http://127.0.0.1:{server.server_port}"))
        server.shutdown()
        thread.join()


def test_a_page_that_answers_with_an_error_is_a_failure(broken_page: Any) -> None:
    with pytest.raises(HTTPError, match="503"):
        page(broken_page)


def test_it_is_part_of_make_bench() -> None:
    assert " operators " in MAKEFILE.read_text()
