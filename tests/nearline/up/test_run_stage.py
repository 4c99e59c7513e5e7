"""`nearline run` on two data folders, which play two machines, with one broker."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from nearline.ports import free_ports
from retriever.client import RetrieverClient
from retriever.errors import RetrieverError, RetrieverUnavailable
from schemas.api import RetrieveRequest
from schemas.generations import GenerationRecord, PackageSource, Pointer
from schemas.topics import encode_group, index_group
from streams.generations.last_state import last_state_file, remember
from streams.generations.state import Generations
from tests.kit.commands import run_command
from tests.kit.data.events import post_created, post_deleted, write_events
from tests.kit.data.generations import AT
from tests.kit.instances import START_S, data_folder, processes_of, stage_processes
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.packages import make_tiny_package
from tests.kit.waiting import until
from trainer.publishing.registry import Registry

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]


class Machine:
    """Runs stages on a data folder of its own."""

    def __init__(self, folder: Path, config: Path) -> None:
        self.folder = folder
        self._config = config
        self.running: list[subprocess.Popen[bytes]] = []

    def run(self, *words: str, environment: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "nearline", "run", *words, "--config", self._config, "--data-dir", self.folder]
        with (self.folder.parent / "log").open("ab") as log:
            self.running.append(subprocess.Popen(command, stderr=log, env={**os.environ, **(environment or {})}))

    def children(self) -> dict[str, int]:
        """The pids of the processes of stages, by name."""
        return {name: process.pid for name, process in stage_processes(self.folder).items()}

    def stop(self) -> list[int]:
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        return [process.wait(60) for process in self.running]


@contextmanager
def machine(folder: Path, config: Path) -> Iterator[Machine]:
    machine = Machine(folder, config)
    try:
        yield machine
    finally:
        for process in machine.running:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def folder() -> Iterator[Path]:
    with data_folder() as folder:
        folder.mkdir()
        yield folder


def test_two_machines_replace_the_model(clean_topics: RunningBroker, folder: Path) -> None:
    first, second = (make_tiny_package(folder / name, hidden=16, layers=1, seed=seed) for seed, name in enumerate("ab"))
    Registry(str(folder / "registry")).publish(second, {})
    port, grpc_port, run_port, monitor_port = free_ports(4)
    config = folder / "cluster.toml"
    config.write_text(
        f'package = "{first.folder}"\n[kafka]\nbootstrap_servers = "{clean_topics.bootstrap_servers}"\n'
        f"partitions = 2\n[serve]\nport = {port}\ngrpc_port = {grpc_port}\n[monitor]\nport = {monitor_port}\n"
    )
    url = f"http://127.0.0.1:{port}"

    def command(*words: str | Path) -> str:
        environment = {"NEARLINE_SERVE__URL": url, "NEARLINE_MONITOR__URL": f"http://127.0.0.1:{monitor_port}"}
        done = run_command([*words, "--config", config, "--data-dir", folder / "operator"], environment=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with ExitStack() as stack:
        one, other = (stack.enter_context(machine(folder / name, config)) for name in ("one", "other"))
        for words in (["contexts"], ["encode", "--place", "blue"], ["index"], ["serve"], ["monitor"]):
            one.run(*words)
        other.run("encode", "--place", "green", environment={"NEARLINE_RUN__PORT": str(run_port)})
        events = [post_created(f"p{number}", f"number {number} of the harbor") for number in range(20)]
        until(lambda: _ready(url), f"the retriever of {first.generation} to be ready", START_S, 0.2)
        command("ingest", write_events(folder / "events", events))
        command("wait")
        assert _found(url) == (first.generation, {f"p{number}" for number in range(20)})
        assert set(one.children()) == {"contexts-0", "encode-blue-0", "cold-blue", "serve", "monitor"}
        assert other.children() == {}, "its place is empty"
        assert _page(run_port, "/readyz") == '{"ready":true,"problems":[]}\n', "and waits for one, as it should"
        before = one.children()
        built = command("generations", "build", second.generation, "--registry", folder / "registry", "--wait").split()[
            0
        ]
        assert built == second.generation
        assert set(other.children()) == {"encode-green-0"}
        os.kill(other.children()["encode-green-0"], signal.SIGKILL)
        command("ingest", write_events(folder / "events", [post_deleted("p3")]))
        command("wait")
        command("generations", "promote", built, "--force", "--reason", "a test")
        left = {f"p{number}" for number in range(20)} - {"p3"}
        until(lambda: _found(url) == (built, left), "the promoted one to answer, whole", START_S, 0.2)
        command("wait")
        command("generations", "rollback")
        until(lambda: _found(url) == (first.generation, left), "the way back", START_S, 0.2)
        command("wait")
        command("generations", "promote", built, "--force", "--reason", "a test")
        command("wait")
        until(lambda: _found(url) == (built, left), "it to answer again", START_S, 0.2)
        assert _page(run_port, "/livez") == '{"alive":true}\n'
        assert _page(run_port, "/readyz") == '{"ready":true,"problems":[]}\n'
        metrics = _page(run_port, "/metrics")
        assert 'nearline_process_restarts_total{process="encode-green-0"} 1.0' in metrics
        assert re.search(r'^nearline_encode_tokens_total\{process="encode-green-0"\} [1-9]', metrics, re.MULTILINE)
        assert set(other.children()) == {"encode-green-0"}, "what is killed is started again"
        assert one.children().items() > before.items(), "a promotion restarts nothing"
        groups = {group(of) for group in (encode_group, index_group) for of in (first.generation, second.generation)}
        until(lambda: _groups(one.folder) == {"contexts", "trending", *groups}, "the lag of all groups", START_S, 0.2)
        _a_standstill_is_named_on_another_machine(command, one.children()["contexts-0"], folder / "events")
        assert one.stop() + other.stop() == [0] * 6
        assert processes_of(folder) == []
    assert [path.name for path in (folder / "one" / "runs").glob("*.json")] == []


def _a_standstill_is_named_on_another_machine(command: Callable[..., str], contexts: int, file: Path) -> None:
    """By its monitor, which sees what stages commit."""

    def standing_still() -> list[str]:
        found: list[str] = json.loads(command("status", "--json"))["standing_still"]
        return found

    def is_named() -> bool:
        said = [each for each in standing_still() if each.startswith("contexts has stood still for ")]
        return bool(said) and "no event that comes in changes what is found" in said[0]

    os.kill(contexts, signal.SIGSTOP)
    try:
        command("ingest", write_events(file, [post_created("late", "late in the harbor")]))
        until(is_named, "it to be named", START_S, 0.2)
    finally:
        with suppress(ProcessLookupError):  # killed, because it stood still for a minute
            os.kill(contexts, signal.SIGCONT)
    until(lambda: standing_still() == [], "it to go on", START_S, 0.2)


def test_a_retriever_that_was_here_before_starts_while_the_broker_is_away(folder: Path) -> None:
    package = make_tiny_package(folder / "a", hidden=16, layers=1)
    port, grpc_port, nobody = free_ports(3)
    config = folder / "cluster.toml"
    config.write_text(
        f'package = "{package.folder}"\n[kafka]\nbootstrap_servers = "127.0.0.1:{nobody}"\n'
        f"[serve]\nport = {port}\ngrpc_port = {grpc_port}\n"
    )
    source = PackageSource(folder=str(package.folder))
    record = GenerationRecord(package.generation, "serving", "blue", source, package.digest, AT)
    with machine(folder / "one", config) as one:
        one.folder.mkdir()
        remember(last_state_file(one.folder), Generations().with_records([record, Pointer(package.generation)]))
        one.run("serve")
        until(lambda: _answers(url=f"http://127.0.0.1:{port}"), "the retriever to answer", START_S, 0.2)
        assert _found(f"http://127.0.0.1:{port}") == (package.generation, set()), "neither tier is there"
        assert one.stop() == [0]


def _answers(url: str) -> bool:
    try:
        return bool(_found(url)[0])
    except RetrieverError:
        return False


def _groups(folder: Path) -> set[str]:
    """Whose lag the monitor of this data folder measures, wherever they run."""
    (group,) = json.loads((folder / "metrics" / "monitor.json").read_bytes())
    with urllib.request.urlopen(f"http://{group['targets'][0]}/metrics", timeout=30) as answer:
        return set(
            re.findall(r'^kafka_consumergroup_lag\{consumergroup="([^"]+)"', answer.read().decode(), re.MULTILINE)
        )


def _page(port: int, path: str) -> str:
    """Raises HTTPError where it does not answer with 200."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return str(answer.read().decode())


def _ready(url: str) -> bool:
    try:
        with RetrieverClient(url) as client:
            return client.ready().ready
    except RetrieverUnavailable:
        return False


def _found(url: str) -> tuple[str, set[str]]:
    with RetrieverClient(url) as client:
        answer = client.retrieve(RetrieveRequest(text="the harbor", k=100))
    return answer.generation, set(answer.post_ids)


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (
            ["index"],
            "nearline: kafka.bootstrap_servers is missing: name the broker, because nearline run starts none\n",
        ),
        (
            ["serve", "--place", "blue"],
            "nearline: --place is of encode and index; serve works for all generations; see",
        ),
        (["trending", "--slot", "1"], "nearline: --slot is of contexts and encode; one trending is enough for a data"),
    ],
)
def test_what_does_not_fit_together_is_refused(words: list[str], refusal: str, tmp_path: Path) -> None:
    refused = run_command(["run", *words, "--data-dir", tmp_path / "data"])
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(refusal)
    assert not (tmp_path / "data").exists()
