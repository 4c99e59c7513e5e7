"""Whom a command asks what stands still: the monitor that the settings name, or that of the instance."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from nearline.ask.connections import Connections
from nearline.ask.standing import Standing
from nearline.ask.status import read_status
from nearline.ask.status_sources import sources_of_command, standing_in_folder
from nearline.settings.instance import Instance, ProcessInfo, locked, read_instance, write_instance
from nearline.settings.settings import Settings
from tests.kit.commands import run_command
from tests.kit.instances import NO_BROKER
from tests.kit.monitors import monitor_without_broker
from tests.kit.running import frozen

NOBODY = "http://127.0.0.1:1"


def cluster(folder: Path, monitor: str | None) -> Connections:
    """Stages that `nearline run` runs elsewhere, of which only the monitor may answer."""
    settings = Settings.model_validate(
        {
            "data_dir": folder,
            "kafka": {"bootstrap_servers": NO_BROKER},
            "serve": {"url": NOBODY},
            "cold": {"url": NOBODY},
            "monitor": {"url": monitor},
        }
    )
    return Connections(settings, lambda: read_instance(folder))


def told(connections: Connections) -> Standing:
    return sources_of_command(connections).standing()


@contextmanager
def no_http() -> Iterator[str]:
    """The URL of one who says something else than HTTP, once."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"220 mail.example\r\n")

        thread = Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_the_judgement_on_a_cluster_is_that_of_its_monitor(tmp_path: Path) -> None:
    with monitor_without_broker(tmp_path) as url:
        standing = told(cluster(tmp_path, f"{url}/"))
    (sentence,) = standing.sentences
    assert sentence.startswith("broker has stood still for 31 s: it does not answer")
    assert standing.problems == ()


def test_nearline_status_names_what_stands_still_on_a_cluster(tmp_path: Path) -> None:
    with monitor_without_broker(tmp_path) as url:
        environment = {
            "NEARLINE_KAFKA__BOOTSTRAP_SERVERS": NO_BROKER,
            "NEARLINE_SERVE__URL": NOBODY,
            "NEARLINE_COLD__URL": NOBODY,
            "NEARLINE_MONITOR__URL": url,
        }
        done = run_command(["status", "--data-dir", tmp_path], environment=environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "standing still, generation unknown"
    assert lines[1].startswith("standing still: broker has stood still for 31 s: it does not answer; no event goes on")
    assert "problem: broker: not asked, because it does not answer the monitor" in lines


def test_a_monitor_that_does_not_answer_is_one_sentence_beside_what_is_known(tmp_path: Path) -> None:
    status = read_status(sources_of_command(cluster(tmp_path, NOBODY)))
    (sentence,) = (problem for problem in status.problems if problem.startswith("monitor: "))
    assert sentence.startswith(f"monitor: the monitor does not answer at {NOBODY}: ")
    assert status.standing_still == []
    assert [stage.stage for stage in status.stages], "what it knows itself"


def test_what_speaks_no_http_is_one_sentence_too(tmp_path: Path) -> None:
    with no_http() as url:
        (problem,) = told(cluster(tmp_path, url)).problems
    assert problem.startswith(f"monitor: the monitor does not answer at {url}: 220 mail.example")


def test_without_an_address_nobody_is_asked_about_a_cluster(tmp_path: Path) -> None:
    assert told(cluster(tmp_path, None)) == Standing()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    """With a process that a signal has stopped, and no monitor."""
    with subprocess.Popen(["sleep", "600"]) as process, frozen(process.pid):
        processes = [ProcessInfo("autopilot", process.pid, 0)]
        instance = Instance(1, NO_BROKER, "a-1", "", None, None, False, processes, "2026-01-05T10:00:00Z")
        with locked(tmp_path):
            write_instance(tmp_path, instance)
            yield instance
        process.kill()


def test_the_address_wins_over_the_monitor_of_the_data_folder(instance: Instance, tmp_path: Path) -> None:
    with monitor_without_broker(tmp_path / "monitor") as url:
        settings = Settings.model_validate({"data_dir": tmp_path, "monitor": {"url": url}})
        standing = told(Connections(settings, lambda: instance))
    assert standing.stages == {("broker", None)}


def test_where_it_is_silent_the_processes_of_this_machine_are_judged(instance: Instance, tmp_path: Path) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path, "monitor": {"url": NOBODY}})
    standing = told(Connections(settings, lambda: instance))
    assert standing.stages == {("autopilot", None)}
    assert len(standing.problems) == 1


def test_a_retriever_asks_the_monitor_of_its_own_instance(instance: Instance, tmp_path: Path) -> None:
    """On a cluster no retriever may connect to the monitor."""
    settings = Settings.model_validate({"data_dir": tmp_path, "monitor": {"url": NOBODY}})
    standing = standing_in_folder(settings)
    assert standing.stages == {("autopilot", None)}
    assert standing.problems == []
