"""The autopilot on a real broker, with packages in a registry. No stage runs: what a place or the retriever would say
in the log is said here, and what the gate finds is given."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from encoders.package.manifest import MANIFEST_FILE
from encoders.package.model_package import WEIGHTS_FILE, ModelPackage
from nearline.autopilot import acts as own
from nearline.autopilot.decision import Next
from nearline.autopilot.metrics import AutopilotMetrics
from nearline.autopilot.pilot import Measure, Pilot
from nearline.errors import NoRoom
from nearline.gate.gate import CHECKS
from nearline.gate.names import IN_LOG
from nearline.generations import building
from nearline.generations.packages import packages_folder
from nearline.settings.settings import Settings
from nearline.up.build import build
from nearline.up.failure_reports import StartTracker
from schemas import topics
from schemas.generations import Gate, GateFigure, GenerationRecord, PackageSource
from schemas.ids import Generation
from streams.errors import KafkaUnavailable
from streams.generations import acts
from streams.generations.acts import By, Package
from streams.generations.log import change_generations, read_generations
from streams.generations.models import announce
from streams.generations.state import Generations
from streams.kafka import crash_points
from streams.kafka.offsets import OffsetReader
from streams.kafka.topics import ensure_topics
from streams.settings import AutopilotSettings, GenerationsSettings, KafkaSettings
from tests.kit.commands import Commands
from tests.kit.data.generations import AT
from tests.kit.data.models import model_record
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.packages import make_tiny_package
from tests.kit.running import in_thread
from tests.kit.waiting import until
from trainer.publishing.registry import Registry

pytestmark = pytest.mark.broker

BY = By("test", AT, "to see")
HOLDS = [GateFigure("recall", 0.997, 0.995, True)]


@dataclass
class Cluster:
    """The first package serves; the others lie in a registry. The autopilot is on."""

    kafka: KafkaSettings
    settings: Settings
    registry: Path
    packages: list[ModelPackage]
    now: Any = field(default=AT)
    measured: list[Generation] = field(default_factory=list)
    missing: str | None = None
    """What the machine has no room for."""
    said: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self._metrics = AutopilotMetrics(self.said)

    def announce(self, package: ModelPackage, **changes: str) -> None:
        record = model_record(package.generation, at=self.now)
        source = PackageSource(registry=changes.get("registry", str(self.registry)))
        digest = changes.get("digest", package.digest)
        announce(self.kafka, type(record)(package.generation, digest, source, record.published_at))

    def look(self) -> Next:
        """By an autopilot that was just started."""
        return self.pilot(self.measure).look()

    def pilot(self, measure: Measure) -> Pilot:
        refuse = self.refuse_without_room
        return Pilot(self.settings, self.kafka, measure, refuse, lambda: self.now, metrics=self._metrics)

    def counted(self) -> dict[str, float]:
        """Acts of all pilots by what they are and their outcome, without those that never came."""
        (acts,) = self.said.collect()
        of = [sample for sample in acts.samples if sample.name == "nearline_autopilot_acts_total" and sample.value]
        return {f"{sample.labels['act']} {sample.labels['outcome']}": sample.value for sample in of}

    def measure(self, _: Generations, record: GenerationRecord) -> Gate:
        self.measured.append(record.id)
        return Gate(self.now, HOLDS)

    def refuse_without_room(self, _: Package, __: Generations) -> None:
        if self.missing is not None:
            raise NoRoom(self.missing)

    def make_ready(self) -> None:
        change_generations(self.kafka, lambda state: acts.ready(state, self.packages[1].generation, BY))

    @property
    def state(self) -> Generations:
        return read_generations(self.kafka)

    def fetched(self) -> set[str]:
        """The folders of packages."""
        return {path.name for path in packages_folder(self.settings.data_dir).iterdir() if path.is_dir()}

    def status(self) -> Any:
        return Commands(self.settings.data_dir)("autopilot", "status", "--json").json

    def generations_with_topics(self) -> list[Generation]:
        with closing(OffsetReader(self.kafka, 30)) as reader:
            return list(reader.generations())


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ModelPackage]]:
    folder = tmp_path_factory.mktemp("models")
    made = [make_tiny_package(folder / name, hidden=16, layers=1, seed=seed) for seed, name in enumerate("abc")]
    for package in made[1:]:
        Registry(str(folder / "registry")).publish(package, {})
    return folder / "registry", made


@pytest.fixture
def cluster(
    clean_topics: RunningBroker,
    packages: tuple[Path, list[ModelPackage]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Cluster:
    monkeypatch.setenv("NEARLINE_KAFKA__BOOTSTRAP_SERVERS", str(clean_topics.bootstrap_servers))
    kafka = KafkaSettings(bootstrap_servers=clean_topics.bootstrap_servers, partitions=1)
    settings = Settings(data_dir=tmp_path, kafka=kafka, autopilot=AutopilotSettings(canary_s=600.0))
    ensure_topics(kafka, topics.core_topics())
    registry, made = packages
    first = acts.Package(made[0].generation, PackageSource(folder=str(made[0].folder)), made[0].digest)
    change_generations(kafka, lambda state: acts.found(state, first, BY))
    change_generations(kafka, lambda state: own.switch(state, BY, on=True))
    return Cluster(kafka, settings, registry, made)


class Killed(BaseException):
    """Nobody handles it, as nobody handles a kill."""


@pytest.fixture
def killing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever passes an armed crash point ends there."""

    def end(_: int) -> None:
        raise Killed

    monkeypatch.setattr(crash_points.os, "_exit", end)
    yield
    crash_points._armed.clear()


@pytest.mark.usefixtures("killing")
def test_killed_twice_at_every_step_it_does_each_act_once(cluster: Cluster) -> None:
    second = cluster.packages[1]
    cluster.announce(second)

    def look_and_be_killed(point: str) -> None:
        crash_points.arm(point)
        with pytest.raises(Killed):
            cluster.look()
        crash_points._armed.clear()

    for _ in range(2):
        look_and_be_killed("generations.topics-made")
        assert second.generation not in cluster.state.records
    look_and_be_killed("generations.committed")
    assert cluster.look() == Next("wait", "it is being built", second.generation)
    cluster.make_ready()
    assert cluster.status()["work"] == {
        "generation": second.generation,
        "step": "gate",
        "since": "2026-01-05T10:00:00Z",
    }
    for _ in range(2):
        look_and_be_killed("generations.begun")
    look_and_be_killed("generations.committed")
    assert cluster.measured == [second.generation] * 3, "what was measured is lost with the one that measured it"
    look_and_be_killed("generations.begun")
    look_and_be_killed("generations.committed")
    assert cluster.look().until == AT + timedelta(seconds=600)
    cluster.now += timedelta(seconds=600)
    look_and_be_killed("generations.begun")
    look_and_be_killed("generations.committed")
    assert cluster.look() == Next("wait", f"the newest model {second.generation} serves", second.generation)
    state = cluster.state
    assert state.serving is not None
    assert state.serving.id == second.generation
    assert [act.what for act in state.serving.history] == [
        "build",
        "ready",
        "gate",
        "promote to 5 % of the members",
        "promote",
    ]


def test_one_that_failed_makes_room_for_the_next_and_nothing_of_it_is_left(cluster: Cluster) -> None:
    _, second, third = cluster.packages
    cluster.announce(second)
    assert cluster.look().what == "build"
    cluster.make_ready()
    change_generations(cluster.kafka, lambda state: acts.record_gate(state, second.generation, Gate(AT, []), BY))
    assert cluster.look().what == "fail"
    cluster.now += timedelta(seconds=1)
    cluster.announce(third)
    assert cluster.look().what == "build"
    assert set(cluster.generations_with_topics()) == {second.generation, third.generation}
    assert cluster.look() == Next("wait", "it is being built", third.generation)
    assert cluster.generations_with_topics() == [third.generation]
    assert cluster.status()["failed"] == {second.generation: "its gate does not hold: it has no figures"}


def test_what_it_measured_is_thrown_away_if_an_operator_came_first(cluster: Cluster) -> None:
    generation = cluster.packages[1].generation
    cluster.announce(cluster.packages[1])
    cluster.look()
    cluster.make_ready()

    def measure(_: Generations, record: GenerationRecord) -> Gate:
        change_generations(cluster.kafka, lambda state: acts.retire(state, generation, BY))
        return Gate(AT, HOLDS)

    assert cluster.pilot(measure).look().what == "gate"
    assert cluster.state.records[generation].gate is None
    assert cluster.look() == Next("leave", "it is retired, by retire of test (to see)", generation)
    assert cluster.state.autopilot is not None
    assert cluster.state.autopilot.work is None
    assert cluster.counted() == {"build done": 1, "gate refused": 1, "leave done": 1}


def test_a_registry_that_is_away_hinders_it_until_it_is_back(cluster: Cluster, tmp_path: Path) -> None:
    away = tmp_path / "away"
    cluster.announce(cluster.packages[1], registry=str(away))
    for _ in range(2):
        assert cluster.look().what == "build"
    status = cluster.status()
    assert status["hindrance"].startswith(f"there is no registry {away}; mend the path")
    assert (status["next"]["what"], len(status["acts"])) == ("build", 1)
    away.symlink_to(cluster.registry)
    cluster.look()
    status = cluster.status()
    assert (status["hindrance"], status["work"]["step"]) == (None, "build")
    assert cluster.counted() == {"build hindered": 2, "build done": 1}


def test_an_act_that_the_broker_breaks_off_is_an_error(cluster: Cluster) -> None:
    cluster.announce(cluster.packages[1])
    cluster.look()
    cluster.make_ready()

    def measure(_: Generations, __: GenerationRecord) -> Gate:
        raise KafkaUnavailable("it does not answer")

    with pytest.raises(KafkaUnavailable):
        cluster.pilot(measure).look()
    assert cluster.counted() == {"build done": 1, "gate error": 1}


def test_a_machine_without_room_hinders_it_until_there_is_some(cluster: Cluster) -> None:
    cluster.announce(cluster.packages[1])
    cluster.missing = "2 GB are missing"
    for _ in range(2):
        assert cluster.look().what == "build"
        assert cluster.packages[1].generation not in cluster.state.records
    status = cluster.status()
    assert (status["hindrance"], len(status["acts"])) == ("2 GB are missing", 1)
    cluster.missing = None
    cluster.look()
    assert (cluster.status()["hindrance"], cluster.state.records[cluster.packages[1].generation].state) == (
        None,
        "building",
    )


def test_the_package_of_a_model_that_is_not_tried_any_more_is_removed(cluster: Cluster) -> None:
    """The machine had no room for it, and then a newer one was published."""
    _, second, third = cluster.packages
    cluster.announce(second)
    cluster.missing = "2 GB are missing"
    cluster.look()
    assert cluster.fetched() == {second.generation}, "it is tried again, and not fetched again"
    cluster.now = datetime.now(UTC) + timedelta(seconds=1)
    cluster.announce(third)
    assert cluster.look().generation == third.generation
    assert cluster.fetched() == {third.generation}


def test_what_was_made_for_a_build_is_removed_if_an_operator_came_first(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = building._ends_of_contexts

    def be_switched_off(*arguments: Any) -> acts.Goal:
        change_generations(cluster.kafka, lambda state: own.switch(state, BY, on=False))
        return ends(*arguments)

    monkeypatch.setattr(building, "_ends_of_contexts", be_switched_off)
    cluster.announce(cluster.packages[1])
    assert cluster.look().what == "build"
    assert (cluster.generations_with_topics(), cluster.fetched()) == ([], set())


@pytest.mark.parametrize("damage", ["a file", "the weights", "the digest"])
def test_a_package_that_is_not_what_was_announced_has_failed(cluster: Cluster, tmp_path: Path, damage: str) -> None:
    package = make_tiny_package(tmp_path / "d", hidden=16, layers=1, seed=7)
    registry = tmp_path / "registry"
    Registry(str(registry)).publish(package, {})
    if damage == "a file":
        file = registry / "packages" / package.generation / MANIFEST_FILE
        file.write_bytes(file.read_bytes().replace(b'"format"', b'"fromat"'))
    if damage == "the weights":
        (registry / "packages" / package.generation / WEIGHTS_FILE).write_bytes(b"others")
    digest = "0" * 64 if damage == "the digest" else package.digest
    cluster.announce(package, registry=str(registry), digest=digest)
    assert cluster.look().what == "build"
    assert cluster.fetched() == set()
    cannot = "its package cannot be used: "
    words = {"a file": cannot, "the weights": cannot, "the digest": "another package than the announced one lies in"}
    status = cluster.status()
    assert status["failed"][package.generation].startswith(words[damage])
    assert status["next"]["why"].startswith(f"the newest model {package.generation} failed: ")
    assert package.generation not in cluster.state.records
    assert cluster.counted() == {"fail done": 1}


def test_its_process_measures_a_gate_that_cannot_be_measured_here_and_waits(cluster: Cluster) -> None:
    """No retriever and no cold tier runs."""
    bounds = GenerationsSettings(settle_s=0.0, soak_s=0.0)
    often = cluster.settings.autopilot.model_copy(update={"look_every_s": 0.2})
    settings = cluster.settings.model_copy(update={"generations": bounds, "autopilot": often})
    generation = cluster.packages[1].generation
    cluster.announce(cluster.packages[1])
    start_tracker, failures = StartTracker(), list[Exception]()
    run = build("autopilot", settings, start_tracker, failures.append)
    with in_thread(run):
        until(lambda: generation in cluster.state.records, "the autopilot to build", 60, 0.2)
        assert not start_tracker.is_starting
        cluster.make_ready()
        until(lambda: cluster.state.records[generation].gate is not None, "it to run the gate", 120, 0.2)
    found = cluster.state.records[generation].gate
    assert found is not None
    assert [figure.name for figure in found.figures] == [name for check in CHECKS for name in check.names]
    assert {figure.name for figure in found.figures if figure.figure is not None} >= {IN_LOG}
    shown = cluster.status()
    assert (shown["work"]["generation"], shown["acts"][-1]["what"]) == (generation, "gate does not hold")
    assert "not measured: " in shown["acts"][-1]["reason"]
    assert failures == []
