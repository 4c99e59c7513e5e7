"""`nearline up` on real parts: what it promises to whoever starts, kills and stops it."""

import json
import os
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nearline.monitor.report import ask_monitor
from retriever.client import RetrieverClient
from retriever.errors import RetrieverUnavailable
from schemas.api import RetrieveRequest
from tests.kit.certificates import Certificate, certificate
from tests.kit.commands import run_command
from tests.kit.data.events import post_created, write_events
from tests.kit.instances import START_S, Up, data_folder, processes_of, up
from tests.kit.packages import make_tiny_package
from tests.kit.waiting import until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(900)]

SERVING = health_pb2.HealthCheckResponse.SERVING
KEY = "a-key-that-nobody-may-see"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "package"
    make_tiny_package(folder, dimension=32)
    return folder


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with data_folder() as folder:
        yield folder


def test_the_life_of_an_instance(data_dir: Path, package: Path) -> None:
    # For a name that is not this machine's, as that of a real service is.
    certified = certificate(data_dir.parent, "retriever.example")
    key_file = data_dir.parent / "key"
    key_file.write_text(KEY)
    environment = {
        **certified.environment(),
        "NEARLINE_SERVE__API_KEY_FILE": str(key_file),
        "NEARLINE_HOT__STALE_AFTER_S": "5",
        "NEARLINE_MONITOR__CANARY_S": "1",
    }
    with up(data_dir, package, environment) as running:
        running.wait_ready()
        _says_what_runs(running)
        _answers_its_commands(running, certified)
        _keeps_the_key_to_itself(running)
        _listens_on_loopback_alone(running)
        _second_one_is_refused(running, package)
        _a_canary_passes_and_nobody_sees_it(running)
        _is_not_ready_while_the_broker_is_stopped(running)
        _starts_again_whatever_is_killed(running)
        running.kill()
        until(lambda: not processes_of(data_dir), "every process to end with the one that started it", 10)
    _another_package_is_refused(running)
    # Without a package, the log says what serves.
    with up(data_dir, None, {"NEARLINE_SERVE__WORKERS": "2"}) as running:
        running.wait_ready()
        assert running.instance.package == str(package)
        _lists_what_serves(running)
        _all_workers_have_what_was_waited_for(running)
        _questions_reach_all_workers(running)
        _others_answer_while_a_worker_restarts(running)
        assert running.stop() == 0
        _left_nothing_behind(running)


def test_a_stop_while_starting_leaves_nothing_behind(data_dir: Path, package: Path) -> None:
    with up(data_dir, package) as running:
        running.wait_starting()
        assert running.stop() == 0
        _left_nothing_behind(running)


def _says_what_runs(running: Up) -> None:
    instance = running.instance
    names = sorted(process.name for process in instance.processes)
    assert names == ["broker", "cold-blue", "contexts-0", "encode-blue-0", "monitor", "serve", "trending"]
    assert instance.supervisor_pid == running.pid
    assert instance.ready
    assert instance.generation.startswith("tiny-")


def _answers_its_commands(running: Up, certified: Certificate) -> None:
    """They need no setting: the data folder tells them the key, and which certificate to believe."""
    assert str(running.instance.url).startswith("https://127.0.0.1:")
    assert running.instance.grpc is not None
    trusted = grpc.ssl_channel_credentials(certified.ca_file.read_bytes())
    name = (("grpc.ssl_target_name_override", "retriever.example"),)
    with grpc.secure_channel(running.instance.grpc, trusted, name) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        asked = health_pb2.HealthCheckRequest()
        until(lambda: health.Check(asked, timeout=20).status == SERVING, "gRPC to say that it serves", 30)
    (group,) = json.loads((running.data_dir / "metrics" / "serve.json").read_bytes())
    assert group["labels"]["__scheme__"] == "https"
    for command in (["status", "--json"], ["retrieve", "--member", "m", "--json"]):
        command_line = [sys.executable, "-m", "nearline", *command, "--data-dir", str(running.data_dir)]
        done = subprocess.run(command_line, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["generation"] == running.instance.generation
        assert KEY not in done.stdout


def _keeps_the_key_to_itself(running: Up) -> None:
    assert KEY not in running.log()
    assert KEY not in (running.data_dir / "instance.json").read_text()
    lines = [word for process in processes_of(running.data_dir) for word in process.cmdline()]
    assert lines
    assert not any(KEY in word for word in lines), "everybody can read a process list"
    assert os.stat(running.data_dir / "settings.json").st_mode & 0o077 == 0


def _listens_on_loopback_alone(running: Up) -> None:
    """The broker, the retriever and the metrics, unless told otherwise."""
    connections = [
        connection for process in processes_of(running.data_dir) for connection in process.net_connections("inet")
    ]
    listening = {
        ip_address(connection.laddr.ip) for connection in connections if connection.status == psutil.CONN_LISTEN
    }
    assert listening, "nobody listens at all?"
    # Java listens to both families, and shows an address of the old one as one of the new.
    assert all((getattr(address, "ipv4_mapped", None) or address).is_loopback for address in listening), listening


def _second_one_is_refused(running: Up, package: Path) -> None:
    command = [sys.executable, "-m", "nearline", "up", "--data-dir", str(running.data_dir), "--package", str(package)]
    second = subprocess.run([*command, "--port", "0"], capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert second.stderr.startswith(f"nearline: another nearline up runs on {running.data_dir}")
    assert running.instance.supervisor_pid == running.pid, "the second one must not touch the first one's file"


def _a_canary_passes_and_nobody_sees_it(running: Up) -> None:
    def metrics() -> str:
        with urllib.request.urlopen(f"{running.instance.monitor}/metrics", timeout=30) as answer:
            return str(answer.read().decode())

    passed = rf'^nearline_canaries_total{{generation="{running.instance.generation}",outcome="passed"}} [1-9]'
    until(lambda: re.search(passed, metrics(), re.MULTILINE) is not None, "a canary to pass", START_S, 0.2)
    assert not re.search(r'outcome="(lost|stayed)"', metrics())
    command = [sys.executable, "-m", "nearline", "retrieve", "--text", "a canary of nearline", "--json"]
    done = subprocess.run(
        [*command, "--data-dir", str(running.data_dir)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "nearline-canary" not in done.stdout


def _lists_what_serves(running: Up) -> None:
    command = [sys.executable, "-m", "nearline", "generations", "list", "--json", "--data-dir", str(running.data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["serving"] == running.instance.generation


def _another_package_is_refused(running: Up) -> None:
    """And what was started to find that out is ended."""
    another = running.data_dir.parent / "another package"
    make_tiny_package(another, dimension=32, seed=1)
    command = [sys.executable, "-m", "nearline", "up", "--data-dir", str(running.data_dir), "--package", str(another)]
    done = subprocess.run([*command, "--port", "0"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert re.search(r"nearline: the generation tiny-\w+ serves here, and this package is tiny-", done.stderr)
    assert done.stderr.endswith(f"nearline generations build '{another}'\n")
    _left_nothing_behind(running)


def _is_not_ready_while_the_broker_is_stopped(running: Up) -> None:
    """What is killed next need not wait for it to go on."""
    assert running.instance.monitor is not None
    monitor = running.instance.monitor
    until(lambda: ask_monitor(monitor, 10).ready, "the monitor to have looked around", START_S, 0.2)
    (broker,) = (process.pid for process in running.instance.processes if process.name == "broker")
    psutil.Process(broker).suspend()
    try:
        until(lambda: not _serve_says_ready(running), "the retriever not to be ready", 30, 0.1)
        metrics = _asked_of_serve(running, "/metrics")
        assert re.findall(r"^nearline_ready\{.*\} (\S+)$", metrics, re.MULTILINE) == ["0.0"]
        until(lambda: not ask_monitor(monitor, 10).broker_up, "the monitor to miss the broker", 30, 0.1)
        (standing,) = ask_monitor(monitor, 10).standing_still
        assert standing.cause == f"broker (pid {broker}) is stopped by a signal"
    finally:
        psutil.Process(broker).resume()


def _serve_says_ready(running: Up) -> bool:
    try:
        return bool(json.loads(_asked_of_serve(running, "/readyz"))["ready"])
    except urllib.error.HTTPError as error:
        with error:
            return bool(json.loads(error.read())["ready"])


def _asked_of_serve(running: Up, path: str) -> str:
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(f"{running.instance.url}{path}", headers={"X-API-Key": KEY})
    with urllib.request.urlopen(request, timeout=30, context=anyone) as answer:
        return str(answer.read().decode())


def _starts_again_whatever_is_killed(running: Up) -> None:
    before = running.instance
    for process in before.processes:
        assert process.pid is not None
        psutil.Process(process.pid).kill()
    until(lambda: _all_restarted(running), "every process to be started again", START_S, 0.2)
    running.wait_serving()
    after = running.instance
    assert (after.bootstrap_servers, after.url) == (before.bootstrap_servers, before.url), "clients must come back"


def _all_workers_have_what_was_waited_for(running: Up) -> None:
    events = running.data_dir.parent / "events.jsonl"
    write_events(events, [post_created("p", "a walrus plays the banjo")])
    for command in (["ingest", str(events)], ["wait"]):
        done = run_command([*command, "--data-dir", running.data_dir])
        assert done.returncode == 0, done.stderr
    assert list(running.instance.workers) == ["serve-0", "serve-1"]
    for url in running.instance.workers.values():
        with RetrieverClient(url) as client:
            assert client.post("p").hot.present
            # After the kill a stage may have stood for a while; the monitor looks again in a second.
            until(lambda: client.status().ready, "each to say of all of them that they are ready")


def _questions_reach_all_workers(running: Up) -> None:
    until(lambda: _is_whole(running) and all(map(_num_answers, _metrics_of_workers(running))), "both to be asked")


def _others_answer_while_a_worker_restarts(running: Up) -> None:
    before = {process.name: process for process in running.instance.processes}
    killed = psutil.Process(before["serve-1"].pid)
    killed.kill()
    until(lambda: not psutil.pid_exists(killed.pid), "it to be gone", 10)
    own_url = running.instance.workers["serve-1"]

    def restarted() -> bool:
        assert _is_whole(running), "the other one answers, and the one that has not read everything takes no question"
        return any(process.restarts for process in running.instance.processes) and _is_ready(own_url)

    until(restarted, "it to be ready again", START_S, 0.1)
    after = {process.name: process for process in running.instance.processes}
    assert {name for name in after if after[name] != before[name]} == {"serve-1"}


def _is_whole(running: Up) -> bool:
    """Asks one question on a new connection, which the kernel gives to any worker."""
    assert running.instance.url is not None
    with RetrieverClient(running.instance.url) as client:
        answer = client.retrieve(RetrieveRequest(member_id="nobody", k=1))
    return not answer.partial


def _is_ready(url: str) -> bool:
    try:
        with RetrieverClient(url) as client:
            return client.ready().ready
    except RetrieverUnavailable:
        return False


def _metrics_of_workers(running: Up) -> list[str]:
    folder = running.data_dir / "metrics"
    targets = [json.loads((folder / f"{name}.json").read_bytes()) for name in running.instance.workers]
    pages: list[str] = []
    for ((target,),) in ([group["targets"] for group in groups] for groups in targets):
        with urllib.request.urlopen(f"http://{target}/metrics", timeout=30) as answer:
            pages.append(answer.read().decode())
    return pages


def _num_answers(metrics: str) -> float:
    return sum(map(float, re.findall(r"^nearline_retrieve_answers_total\{.*\} (\S+)$", metrics, re.MULTILINE)))


def _all_restarted(running: Up) -> bool:
    return all(process.restarts > 0 and process.pid is not None for process in running.instance.processes)


def _left_nothing_behind(running: Up) -> None:
    assert processes_of(running.data_dir) == []
    left = {path.name for path in running.data_dir.iterdir()}
    kept = {"kafka", "rows", "cold", "hot", "trending", "checked", "node-id", "lock", "generations.jsonl", "forms.json"}
    assert left <= kept, "only what the next start goes on with"
