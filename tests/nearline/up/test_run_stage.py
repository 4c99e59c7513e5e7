"""`nearline run` on two data folders, which play two machines, with one broker."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from nearline.ports import free_ports
from retriever.client import RetrieverClient
from retriever.errors import RetrieverUnavailable
from schemas.api import RetrieveRequest
from tests.kit.commands import run_command
from tests.kit.data.events import post_created, post_deleted, write_events
from tests.kit.instances import START_S, data_folder, processes_of
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.packages import make_tiny_package
from tests.kit.waiting import until
from trainer.publishing.registry import Registry

pytestmark = pytest.mark.broker


class Machine:
    """Runs stages on a data folder of its own."""

    def __init__(self, folder: Path, config: Path) -> None:
        self.folder = folder
        self._config = config
        self.running: list[subprocess.Popen[bytes]] = []

    def run(self, *words: str) -> None:
        command = [sys.executable, "-m", "nearline", "run", *words, "--config", self._config, "--data-dir", self.folder]
        with (self.folder.parent / "log").open("ab") as log:
            self.running.append(subprocess.Popen(command, stderr=log))

    def children(self) -> dict[str, int]:
        """The pids of the processes of stages, by name."""
        found = {}
        for process in processes_of(self.folder):
            words = process.cmdline()
            if "nearline.up.process" in words:
                found[words[words.index("nearline.up.process") + 1]] = process.pid
        return found

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
    port, grpc_port = free_ports(2)
    config = folder / "cluster.toml"
    config.write_text(
        f'package = "{first.folder}"\n[kafka]\nbootstrap_servers = "{clean_topics.bootstrap_servers}"\n'
        f"partitions = 2\n[serve]\nport = {port}\ngrpc_port = {grpc_port}\n"
    )
    url = f"http://127.0.0.1:{port}"

    def command(*words: str | Path) -> str:
        environment = {"NEARLINE_SERVE__URL": url}
        done = run_command([*words, "--config", config, "--data-dir", folder / "operator"], environment=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with ExitStack() as stack:
        one, other = (stack.enter_context(machine(folder / name, config)) for name in ("one", "other"))
        for words in (["contexts"], ["encode", "--place", "blue"], ["index"], ["serve"]):
            one.run(*words)
        other.run("encode", "--place", "green")
        events = [post_created(f"p{number}", f"number {number} of the harbor") for number in range(20)]
        until(lambda: _ready(url), f"the retriever of {first.generation} to be ready", START_S, 0.2)
        command("ingest", write_events(folder / "events", events))
        command("wait")
        assert _found(url) == (first.generation, {f"p{number}" for number in range(20)})
        assert set(one.children()) == {"contexts-0", "encode-blue-0", "cold-blue", "serve"}
        assert other.children() == {}, "its place is empty"
        before = one.children()
        built = command("generations", "build", second.generation, "--registry", folder / "registry", "--wait").split()[
            0
        ]
        assert built == second.generation
        assert set(other.children()) == {"encode-green-0"}
        os.kill(other.children()["encode-green-0"], signal.SIGKILL)
        command("ingest", write_events(folder / "events", [post_deleted("p3")]))
        command("generations", "promote", built, "--force", "--reason", "a test")
        command("wait")
        assert set(other.children()) == {"encode-green-0"}, "what is killed is started again"
        assert one.children().items() > before.items(), "a promotion restarts nothing"
        assert one.stop() + other.stop() == [0] * 5
        assert processes_of(folder) == []
    assert [path.name for path in (folder / "one" / "runs").glob("*.json")] == []


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
