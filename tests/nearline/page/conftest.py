"""The page of a monitor that looks when it is told to, over HTTP, with acts that the test plays or real ones."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from nearline.alerts.objectives import read_objectives
from nearline.ask.status import TiersSeen
from nearline.monitor.monitor import Monitor
from nearline.monitor.processes import ProcessWatch
from nearline.monitor.report import Report, Standstill
from nearline.monitor.server import served
from nearline.page.access import access
from nearline.page.collector import Collector, Sources
from nearline.page.overview import Overview, overview
from nearline.page.pages import (
    Acts,
    Build,
    Candidate,
    Candidates,
    Promote,
    Question,
    ReplayLetters,
    RollBack,
    page_calls,
)
from nearline.ports import free_ports
from nearline.settings.settings import MonitorSettings
from schemas.api import ColdStatus, FreshnessStatus, HotStatus, TiersStatus
from streams.generations.state import Generations
from streams.settings import KafkaSettings
from tests.kit.data.generations import two_live
from tests.kit.instances import NO_BROKER

KEY = "a-key"
TIERS = TiersSeen(
    TiersStatus(cold=ColdStatus(posts=1_200, members=100), hot=HotStatus(posts=600)),
    FreshnessStatus(p50=0.8, p99=2.5, newest_age_s=3.0),
    ready=True,
    hot_caught_up=True,
    problems=[],
)


def standing(stage: str, generation: str | None = None) -> Report:
    """This stage has stood still for 40 s."""
    still = Standstill(stage, generation, "2026-01-05T10:00:00Z", 40.0, "", "", "", f"{stage} has stood still")
    return Report(ready=False, broker_up=True, look_age_s=1.0, standing_still=[still])


class PlayedActs:
    """Does nothing, and remembers what it was told to do."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.refusal: Exception | None = None
        self.texts: list[str] = []
        """Of the candidates of every answer."""
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.begun = threading.Event()

    def build(self, wanted: Build) -> str:
        self.begun.set()
        assert self.may_go_on.wait(60)
        return self._do(wanted)

    def promote(self, wanted: Promote) -> str:
        return self._do(wanted)

    def roll_back(self, wanted: RollBack) -> str:
        return self._do(wanted)

    def replay_letters(self, wanted: ReplayLetters) -> str:
        return self._do(wanted)

    def answer(self, question: Question) -> Candidates:
        self._do(question)
        candidates = [Candidate(f"p{number}", 0.5, "hot", text) for number, text in enumerate(self.texts)]
        return Candidates("a-1", False, candidates, 1.5, [])

    def _do(self, wanted: object) -> str:
        if self.refusal is not None:
            raise self.refusal
        self.done.append(wanted)
        return "it is done"


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ServedPage(NamedTuple):
    monitor: Monitor
    collector: Collector
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def look(self) -> None:
        self.monitor.look_at_broker()
        self.monitor.judge()
        self.collector.look()

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Underscores in names of headers stand for hyphens."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, body if isinstance(body, bytes) else json.dumps(body).encode(), sent)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def overview(self) -> Any:
        answer = self.ask("GET", "/v1/overview")
        assert answer.status == 200
        return answer.json


@contextmanager
def served_page(
    folder: Path,
    kafka: KafkaSettings,
    acts: Acts,
    port: int,
    *,
    state: Callable[[], Generations | None] = lambda: None,
    sources: Sources | None = None,
    key: str | None = KEY,
    host: str = "127.0.0.1",
    serve_key: str | None = None,
    clock: Callable[[], float] = time.monotonic,
    runbooks: str | None = None,
) -> Iterator[ServedPage]:
    """`runbooks`: where they lie; None: where `deploy/slo.toml` says."""
    monitor = Monitor(kafka, state, ProcessWatch(folder), 60.0, clock)
    collector = Collector(monitor, sources or Sources(lambda: TIERS, list, dict), 60.0, clock)
    objectives = read_objectives()
    if runbooks is not None:
        objectives = objectives.model_copy(update={"runbooks": runbooks})
    settings = MonitorSettings(host=host, port=port, api_key=None if key is None else SecretStr(key))
    allowed = access(settings, None if serve_key is None else SecretStr(serve_key))

    def now(since_s: float) -> Overview:
        collected, history = collector.collected, collector.history
        return overview(monitor, collected, history, objectives, clock(), since_s, access=allowed)

    calls = page_calls(now, acts, allowed)
    with served(monitor, CollectorRegistry(), host, port, calls, refuse=allowed.refuse_host):
        yield ServedPage(monitor, collector, port)


@pytest.fixture
def acts() -> PlayedActs:
    return PlayedActs()


@pytest.fixture
def two_served(acts: PlayedActs, tmp_path: Path) -> Iterator[ServedPage]:
    """The page of two generations, one that serves and one that is ready, without a broker. Nobody has looked yet."""
    kafka = KafkaSettings(bootstrap_servers=NO_BROKER)
    with served_page(tmp_path, kafka, acts, free_ports(1)[0], state=lambda: two_live("ready")) as served:
        yield served
