"""A real Prometheus beside the running instance, under load: every panel of every board has data, and alerts fire and
resolve. The windows of the rules are 60 times shorter than those of an operator.
"""

import json
import math
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Final

import psutil
import pytest

from benchmarks.kit.prometheus import Prometheus, Series
from benchmarks.kit.prometheus import running as running_prometheus
from deploy.boards.generate import FOLDER
from nearline.pipeline import Pipeline
from nearline.ports import free_ports
from retriever.client import RetrieverClient
from retriever.errors import RetrieverError
from schemas import topics
from schemas.api import RetrieveRequest
from streams.settings import KafkaSettings
from tests.e2e.conftest import Running
from tests.kit.boards import BoardQuery, queries
from tests.kit.data.events import (
    Event,
    activity,
    key_of,
    line,
    member_deleted,
    member_updated,
    post_created,
    post_deleted,
    topic_of,
)
from tests.kit.kafka.topics import Sender
from tests.kit.programs import check_metrics, program
from tests.kit.run_stage import running_stage
from tests.kit.running import in_thread
from tests.kit.waiting import until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(900)]

FACTOR: Final = 60.0
WAIT_S: Final = 400.0
"""For what takes some seconds on a machine that is ours."""
MEMBERS: Final = 5


@pytest.fixture(scope="module")
def second_monitor(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """On a data folder of its own, as on a cluster: it sends canaries, which the instance's own does not. With the port
    at which `nearline run` answers."""
    data_dir = tmp_path_factory.mktemp("monitor") / "data"
    (port,) = free_ports(1)
    instance = running.pipeline.instance
    environment = {
        "NEARLINE_KAFKA__BOOTSTRAP_SERVERS": instance.bootstrap_servers,
        "NEARLINE_SERVE__URL": str(instance.url),
        "NEARLINE_MONITOR__CANARY_S": "3",
        "NEARLINE_RUN__PORT": str(port),
    }
    with running_stage("monitor", data_dir, environment):
        until((data_dir / "metrics" / "monitor.json").exists, "the second monitor to listen", WAIT_S, 0.2)
        yield data_dir, port


@pytest.fixture(scope="module")
def prometheus(
    running: Running, second_monitor: tuple[Path, int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """Of both data folders."""
    folders = [running.pipeline.data_dir, second_monitor[0]]
    with running_prometheus(program("prometheus"), tmp_path_factory.mktemp("prometheus"), folders, FACTOR) as found:
        yield found


@pytest.fixture
def kafka(pipeline: Pipeline) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=pipeline.instance.bootstrap_servers)


@contextmanager
def load(pipeline: Pipeline, kafka: KafkaSettings, unique: Callable[[str], str]) -> Iterator[None]:
    """A few events and questions of every kind each second, within the context."""
    name = unique("load")

    def run(stop: threading.Event) -> None:
        sender = Sender(kafka)
        with pipeline.client() as client:
            for number in count():
                _send(sender, name, number)
                _ask(client, f"{name}-m{number % MEMBERS}")
                if stop.wait(0.5):
                    break
        gone = [post_deleted(f"{name}-{each}") for each in range(number + 1)]
        gone += [member_deleted(f"{name}-m{each}") for each in range(MEMBERS + 1)]
        _send_events(sender, gone)

    with in_thread(run):
        yield
    pipeline.wait()


def _send(sender: Sender, name: str, number: int) -> None:
    member = f"{name}-m{number % MEMBERS}"
    events = [
        post_created(f"{name}-{number}", f"a harmonica in the harbor, number {number}"),
        member_updated(member, headline=f"harbor pilot {number}"),
        activity(member, f"{name}-{max(0, number - 3)}"),
        member_deleted(f"{name}-m{MEMBERS}"),
    ]
    if number >= 10:
        events.append(post_deleted(f"{name}-{number - 10}"))
    _send_events(sender, events)


def _send_events(sender: Sender, events: list[Event]) -> None:
    for event in events:
        sender.send(topic_of(event), [(key_of(event), line(event))])


def _ask(client: RetrieverClient, member: str) -> None:
    for request in (RetrieveRequest(member_id=member, k=50), RetrieveRequest(text=f"of {member}", k=50)):
        try:
            client.retrieve(request)
        except RetrieverError:  # refused on a busy machine
            continue


def test_every_panel_of_every_board_has_data(
    pipeline: Pipeline, prometheus: Prometheus, kafka: KafkaSettings, unique: Callable[[str], str]
) -> None:
    asked = queries({file.stem: json.loads(file.read_text()) for file in FOLDER.glob("*.json")})
    missing = dict.fromkeys(asked, "never asked")

    def all_have_data() -> bool:
        for query in list(missing):
            problem = _problem(query, prometheus.query(query.expr.replace("$__rate_interval", "20s")))
            if problem is None:
                del missing[query]
            else:
                missing[query] = problem
        return not missing

    with load(pipeline, kafka, unique):
        try:
            until(all_have_data, "all panels to have data", WAIT_S, 1.0)
        finally:
            for query, problem in missing.items():
                print(f"{query.board}: {query.panel}: {query.expr}: {problem}")
    assert asked
    assert set(prometheus.targets().values()) == {"up"}, prometheus.targets()
    named = {series.labels["process"] for series in prometheus.query("nearline_process_up")}
    assert {"broker", "trending"} <= named, "what the monitor says of others has their names"


def _problem(query: BoardQuery, found: list[Series]) -> str | None:
    """Why it shows nothing, or not what it is named after."""
    values = [series for series in found if not math.isnan(series.value)]
    if not values:
        return "no series" if not found else "only NaN"
    if query.expr.endswith(" or vector(0)") and all(not series.labels for series in values):
        return None
    unnamed = [label for label in query.labels if not any(label in series.labels for series in values)]
    return f"no series has {unnamed}" if unnamed else None


def test_promtool_finds_nothing_wrong_with_what_processes_say(
    running: Running, second_monitor: tuple[Path, int]
) -> None:
    data_dir, port = second_monitor
    pages = {"run": f"http://127.0.0.1:{port}/metrics"}
    for file in [*running.pipeline.data_dir.glob("metrics/*.json"), *data_dir.glob("metrics/*.json")]:
        (group,) = json.loads(file.read_text())
        pages[str(file)] = f"http://{group['targets'][0]}/metrics"
    assert len(pages) == 8, pages.keys()
    said = {}
    for name, url in pages.items():
        with urllib.request.urlopen(url, timeout=30) as answer:
            said[name] = check_metrics(answer.read().decode())
    assert {name: answer for name, answer in said.items() if answer != (0, "")} == {}


def test_a_stopped_stage_pages_until_it_goes_on(
    pipeline: Pipeline, prometheus: Prometheus, kafka: KafkaSettings, unique: Callable[[str], str]
) -> None:
    pipeline.wait()
    until(
        lambda: bool(prometheus.query("nearline_standing_still_seconds")), "Prometheus to see the monitor", WAIT_S, 0.5
    )
    until(lambda: "encode" not in _standing(prometheus), "encode not to stand still", WAIT_S, 0.5)
    (pid,) = (process.pid for process in pipeline.instance.processes if process.name == "encode-blue-0")
    process = psutil.Process(pid)
    process.suspend()
    try:
        Sender(kafka).send(topics.POSTS, [(post_id := unique("waits"), line(post_created(post_id, "it waits")))])
        until(lambda: "encode" in _standing(prometheus), "the alert to fire", 120, 0.2)
    finally:
        with suppress(psutil.NoSuchProcess):  # killed, because it stood still for a minute
            process.resume()
    pipeline.wait()
    until(lambda: "encode" not in _standing(prometheus), "the alert to resolve", WAIT_S, 0.5)


def _standing(prometheus: Prometheus) -> set[str]:
    return {alert["stage"] for alert in prometheus.alerts("NearlineStageStandsStill")}


def test_poison_makes_a_ticket_by_cause_until_no_more_comes(
    pipeline: Pipeline, prometheus: Prometheus, kafka: KafkaSettings, unique: Callable[[str], str]
) -> None:
    until(
        lambda: bool(prometheus.query("nearline_monitor_broker_up == 1")), "Prometheus to see the broker", WAIT_S, 0.5
    )
    until(lambda: _causes(prometheus) == set(), "letters of other tests to be old", WAIT_S, 0.5)
    try:
        Sender(kafka).send(topics.POSTS, [(unique("poison"), b"not json")])
        until(lambda: ("contexts", "not_json") in _causes(prometheus), "the alert to fire", WAIT_S, 0.5)
    finally:
        pipeline.wait()
        pipeline.run("dead-letters", "drop", "--all")
    until(lambda: _causes(prometheus) == set(), "the alert to resolve", WAIT_S, 0.5)
    until(lambda: pipeline.ask("status")["dead_letters"] == 0, "no letter to be left", WAIT_S, 0.5)


def _causes(prometheus: Prometheus) -> set[tuple[str, str]]:
    return {(alert["stage"], alert["cause"]) for alert in prometheus.alerts("NearlineDeadLetters")}
