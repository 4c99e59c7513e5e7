"""What a `nearline run` says of itself: over HTTP, with processes that the test plays."""

import http.client
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, Info
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from nearline.ports import free_ports
from nearline.settings.instance import ProcessInfo
from nearline.settings.settings import RunSettings, Settings
from nearline.up.metrics import announce, served_metrics
from nearline.up.run_health import LIVE_WITHIN_S, SILENT_S, RunHealth, served_health
from retriever.settings import ServeSettings
from schemas.ids import Partition
from streams.kafka.heartbeat import HeartbeatFile
from streams.kafka.records import Place
from tests.kit.running import frozen

NAME = "encode-blue-0"


class Asked:
    """A `nearline run` with one process, asked over HTTP."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.now_s = 0.0
        self.health = RunHealth(folder, 60.0, lambda: self.now_s)
        self._port = port

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def problems(self) -> list[str]:
        """Empty where it says that it is ready."""
        status, body = self.get("/readyz")
        readiness = msgspec.json.decode(body)
        assert (status == 200) == readiness["ready"] == (not readiness["problems"])
        return list(readiness["problems"])

    def looks(self, *processes: ProcessInfo, knows_generations: bool = True) -> None:
        self.health.looked(processes, knows_generations=knows_generations)

    def metrics(self) -> dict[tuple[str, str], float]:
        """By the sample's name and process."""
        families = text_string_to_metric_families(self.get("/metrics")[1])
        samples = [sample for family in families for sample in family.samples]
        return {(sample.name, sample.labels.get("process", "")): sample.value for sample in samples}


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    (port,) = free_ports(1)
    asked = Asked(tmp_path, port)
    serve = ServeSettings(api_key=SecretStr("a-key"))
    with served_health(asked.health, Settings(data_dir=tmp_path, run=RunSettings(port=port), serve=serve)):
        yield asked


def running(pid: int | None = os.getpid(), restarts: int = 0, name: str = NAME) -> ProcessInfo:
    return ProcessInfo(name, pid, restarts)


def test_a_run_that_waits_for_kafka_is_alive_and_not_ready(asked: Asked) -> None:
    asked.now_s += 10 * LIVE_WITHIN_S
    assert asked.get("/livez")[0] == 200, "to start it again would help nobody"
    assert asked.problems() == ["it waits for Kafka"]


def test_a_run_is_ready_when_its_loops_have_begun(asked: Asked) -> None:
    asked.looks(running(), knows_generations=False)
    assert asked.problems() == ["it has not read yet which generations live"]
    asked.looks(running())
    assert asked.problems() == [f"{NAME} is still starting"]
    heartbeat = HeartbeatFile(asked.folder, NAME)
    heartbeat.start()
    heartbeat.owns([Place("posts", Partition(0))])
    assert asked.problems() == []
    asked.looks(running(pid=None))
    assert asked.problems() == [f"{NAME} is not running; it is started again"]
    asked.looks(running(pid=os.getppid()))
    assert asked.problems() == [f"{NAME} is still starting"], "the files are of the process before it"


def test_a_loop_that_does_not_come_round_is_not_ready_unless_it_works(asked: Asked) -> None:
    heartbeat = HeartbeatFile(asked.folder, NAME)
    heartbeat.start()
    asked.looks(running())
    long_ago = time.time() - 2 * SILENT_S
    for file in (asked.folder / "pulse" / NAME).iterdir():
        os.utime(file, (long_ago, long_ago))
    assert asked.problems()[0].startswith(f"{NAME} has not come round for 12")
    heartbeat.still_working()
    assert asked.problems() == []


def test_a_process_that_a_signal_has_stopped_is_named_by_the_judgement(asked: Asked) -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        with frozen(process.pid):
            asked.looks(running(pid=process.pid, name="autopilot"))
            assert asked.problems() == [
                f"autopilot has stood still for 0 s: autopilot (pid {process.pid}) is stopped by a signal; published "
                "models are not built; it is killed and started again in about 60 s, unless SIGCONT comes first"
            ]
        assert asked.problems() == []
        process.kill()


def test_an_empty_place_is_ready(asked: Asked) -> None:
    asked.looks()
    assert asked.problems() == []


def test_a_process_without_loops_is_ready_when_it_runs(asked: Asked) -> None:
    asked.looks(running(name="autopilot"))
    assert asked.problems() == []


def test_a_supervisor_that_hangs_is_not_alive_but_one_that_drains_is(asked: Asked) -> None:
    asked.looks()
    asked.now_s += LIVE_WITHIN_S + 1
    assert asked.get("/livez")[0] == 503
    asked.health.drains()
    assert asked.get("/livez")[0] == 200
    assert asked.problems() == ["it is stopping"]


def test_the_metrics_of_the_processes_are_passed_on_with_their_names(asked: Asked) -> None:
    asked.looks(running(restarts=3), running(pid=None, name="encode-green-0"))
    registry = CollectorRegistry()
    Counter("nearline_encode_things", "Things", ["kind"], registry=registry).labels("post").inc(7)
    Histogram("nearline_encode_wait_seconds", "Waits", registry=registry).observe(0.3)
    with served_metrics(NAME, asked.folder, "127.0.0.1", registry):
        metrics = asked.metrics()
    assert metrics["nearline_encode_things_total", NAME] == 7
    assert metrics["nearline_encode_wait_seconds_count", NAME] == 1
    assert metrics["nearline_process_restarts_total", NAME] == 3
    assert (metrics["nearline_process_up", NAME], metrics["nearline_process_up", "encode-green-0"]) == (1, 0)
    assert metrics["nearline_process_resident_memory_bytes", NAME] > 1_000_000
    assert metrics["nearline_build_info", ""] == 1
    assert metrics["nearline_data_folder_size_bytes", ""] >= metrics["nearline_data_folder_free_bytes", ""] > 0


def test_two_processes_with_the_same_metric_are_one_family(asked: Asked) -> None:
    """Prometheus refuses an answer with a family twice."""
    names = (NAME, "encode-green-0")
    asked.looks(*(running(name=name) for name in names))
    registry = CollectorRegistry()
    Counter("nearline_encode_things", "Things", registry=registry).inc()
    with (
        served_metrics(names[0], asked.folder, "127.0.0.1", registry),
        served_metrics(names[1], asked.folder, "127.0.0.1", registry),
    ):
        body = asked.get("/metrics")[1]
    assert body.count("# TYPE nearline_encode_things_total counter") == 1
    assert [line for line in body.splitlines() if line.startswith("nearline_encode_things_total{")] == [
        f'nearline_encode_things_total{{process="{name}"}} 1.0' for name in names
    ]


def test_what_a_process_says_of_all_of_it_is_left_out(asked: Asked) -> None:
    """The monitor names the version too, and knows how all processes are."""
    asked.looks(running(name="monitor"))
    registry = CollectorRegistry()
    Info("nearline_build", "The version", registry=registry).info({"version": "of the process"})
    Counter("nearline_process_restarts", "Restarts", ["process"], registry=registry).labels("encode").inc()
    with served_metrics("monitor", asked.folder, "127.0.0.1", registry):
        body = asked.get("/metrics")[1]
    for family in ("nearline_build_info", "nearline_process_restarts_total"):
        assert body.count(f"# TYPE {family} ") == 1
    assert "of the process" not in body


def test_a_process_that_does_not_say_its_metrics_leaves_those_of_the_run(asked: Asked) -> None:
    asked.looks(running())
    (asked.folder / "metrics").mkdir()
    (port,) = free_ports(1)
    (asked.folder / "metrics" / f"{NAME}.json").write_text(f'[{{"targets": ["127.0.0.1:{port}"], "labels": {{}}}}]')
    assert asked.metrics()["nearline_process_up", NAME] == 1


def test_without_a_port_nothing_is_served(tmp_path: Path) -> None:
    with served_health(RunHealth(tmp_path, 60.0), Settings(data_dir=tmp_path)):
        assert not [thread for thread in threading.enumerate() if thread.name == "run-http"]


def test_the_metrics_of_the_retriever_are_asked_for_with_its_key(asked: Asked) -> None:
    asked.looks(running(name="serve"))
    keys = []

    class Retriever(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(self.headers["X-API-Key"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"# TYPE nearline_ready gauge\nnearline_ready 1\n")

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Retriever) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        announce("serve", asked.folder, "127.0.0.1", server.server_port)
        assert asked.metrics()["nearline_ready", "serve"] == 1
        server.shutdown()
        thread.join()
    assert keys == ["a-key"]
