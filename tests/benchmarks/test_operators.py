"""What `benchmarks/operators.py` makes of what it has asked."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError

import pytest

from benchmarks import operators
from benchmarks.kit import symptoms
from benchmarks.kit.background import in_background
from benchmarks.kit.operators import cost as costs
from benchmarks.kit.operators.asking import metrics_urls, num_series, p99_s, scrape
from benchmarks.kit.operators.page import page, poll_s, stopped_stages
from benchmarks.kit.pipeline_load import PipelineLoad
from benchmarks.kit.table import Figure
from nearline import children
from tests.kit.waiting import until

MAKEFILE = Path(__file__).parents[2] / "Makefile"
PAGE = Path(__file__).parents[2] / "nearline" / "page" / "page.html"


def test_comments_are_no_series() -> None:
    assert num_series('# HELP a b\n# TYPE a gauge\na 1\na{b="c"} 2\n\n') == 2


def test_every_process_is_asked(tmp_path: Path) -> None:
    announce(tmp_path, {"monitor": "127.0.0.1:1", "serve": "127.0.0.1:2"})
    assert metrics_urls(tmp_path) == [f"http://127.0.0.1:{port}/metrics" for port in (1, 2)]


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


@contextmanager
def answering(answer: Callable[[str], str | None]) -> Iterator[str]:
    """The URL of a server that gives the answer to each path; 503 where it is None."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = answer(self.path)
            if text is None:
                self.send_error(503)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def broken_page() -> Iterator[Any]:
    """An instance whose monitor answers 503."""
    with answering(lambda _: None) as url:
        yield SimpleNamespace(instance=SimpleNamespace(monitor=url))


@pytest.fixture
def sleeper() -> Iterator[int]:
    """The pid of a process that does nothing."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process.pid
    process.kill()
    process.wait()


def test_a_page_that_answers_with_an_error_is_a_failure(broken_page: Any) -> None:
    with pytest.raises(HTTPError, match="503"):
        page(broken_page)


def test_what_fails_beside_a_measurement_fails_it() -> None:
    def fail(_: Event) -> None:
        raise RuntimeError("no load")

    with pytest.raises(RuntimeError, match="no load"), in_background(fail):
        pass


def test_a_scrape_asks_every_process_and_once_more_at_the_end(tmp_path: Path) -> None:
    asked: list[int] = []

    def answer(path: str) -> str | None:
        asked.append(1)
        return None if path.startswith("/broken") else f'a_total{{b="{len(asked)}"}} {len(asked)}\nb_total 7\n'

    stop = Event()
    stop.set()
    with answering(answer) as url:
        address = url.removeprefix("http://")
        announce(tmp_path, {"serve": address, "broken": f"{address}/broken"})
        scraped = scrape(instance_of(0, "serve", tmp_path), 60.0, stop)
    assert {name.removeprefix(url): len(answers) for name, answers in scraped.items()} == {
        "/metrics": 1,
        "/broken/metrics": 0,
    }


def test_what_was_seen_is_what_has_grown_meanwhile() -> None:
    serve = [
        'nearline_recall_answers_total{generation="g"} 3\n',
        'nearline_recall_answers_total{generation="g"} 5\nnearline_recall_answers_total{generation="h"} 2\n',
    ]
    monitor = ["", "", 'nearline_canaries_total{outcome="passed"} 1\nnearline_canaries_total{outcome="late"} 1\n']
    assert costs.what_was_seen({"serve": serve, "monitor": monitor}) == costs.Watched(2, 2, 4)
    assert costs.what_was_seen({"serve": serve, "silent": []}).scrapes == 0


def test_watching_that_has_seen_nothing_is_no_comparison() -> None:
    figures = costs.cost_figures(100.0, 99.0, [costs.Watched(60, 4, 9), costs.Watched(60, 0, 9)])
    assert [figure.name for figure in figures if not figure.holds] == [
        "with: canaries in a round that were seen to their end, fewest"
    ]


def test_the_monitor_is_stopped_where_nothing_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleeper: int
) -> None:
    """And goes on before the instance is asked for the rest."""
    is_stopped: list[bool] = []

    def load(*_: object, settings: dict[str, str], beside: Callable[[Any, Event], None], **__: object) -> PipelineLoad:
        with in_background(lambda stop: beside(instance_of(sleeper, "monitor", tmp_path), stop)):
            if settings["NEARLINE_MONITOR__CANARY_S"] == "0":
                until(lambda: children.is_stopped(sleeper), "the monitor to be stopped")
            is_stopped.append(children.is_stopped(sleeper))
        until(lambda: not children.is_stopped(sleeper), "the monitor to go on")
        return PipelineLoad([(0.0, 0), (1.0, 100)], None, None)

    monkeypatch.setattr(costs, "pipeline_load", load)
    monkeypatch.setattr(costs, "encoder_alone", lambda *_: 100.0)
    monkeypatch.setattr(costs, "random_package", lambda *_: tmp_path)
    figures = costs.cost(tmp_path, operators.QUICK.cost, tmp_path, [])
    assert is_stopped == [True, False]
    assert Figure("pipeline with / without", 1.0, 0.97) in figures


def test_a_stopped_stage_is_waited_for_in_the_data_of_the_page(tmp_path: Path, sleeper: int) -> None:
    looks: list[bool] = []

    def answer(path: str) -> str | None:
        if path == "/":
            return PAGE.read_text()
        looks.append(children.is_stopped(sleeper))
        cause = f"encode-blue-0 (pid {sleeper}) is stopped by a signal"
        named = looks[-5:] == [True] * 5  # not at the first look
        return json.dumps({"report": {"standing_still": [{"cause": cause}] if named else []}})

    with answering(answer) as url:
        data_s, shown_s = stopped_stages(instance_of(sleeper, "encode-blue-0", tmp_path, url))
    assert looks.count(True) == 5
    until(lambda: not children.is_stopped(sleeper), "the stage to go on")
    assert "1 processes" in data_s.name
    assert shown_s.value == data_s.value + 2.0
    assert shown_s.bound == 5.0


def test_how_often_the_page_asks_stands_in_it() -> None:
    assert poll_s(PAGE.read_text()) == 2.0
    with pytest.raises(ValueError, match="how often"):
        poll_s("<html>")


def instance_of(pid: int, name: str, data_dir: Path, monitor: str | None = None) -> Any:
    processes = [SimpleNamespace(name=name, pid=pid), SimpleNamespace(name="autopilot", pid=None)]

    class Silent:
        def retrieve(self, _: object) -> None: ...

        def close(self) -> None: ...

    instance = SimpleNamespace(processes=processes, monitor=monitor)
    return SimpleNamespace(instance=instance, data_dir=data_dir, client=Silent)


def announce(data_dir: Path, addresses: dict[str, str]) -> None:
    (data_dir / "metrics").mkdir(exist_ok=True)
    for name, address in addresses.items():
        (data_dir / "metrics" / f"{name}.json").write_text(json.dumps([{"targets": [address], "labels": {}}]))


def test_it_is_part_of_make_bench() -> None:
    assert " operators " in MAKEFILE.read_text()
