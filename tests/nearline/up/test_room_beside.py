"""Who asks whether there is room for another generation, and when. What is free is set by the test."""

import os
import shutil
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from msgspec.structs import replace

from encoders.package.manifest import MANIFEST_FILE
from encoders.package.model_package import ModelPackage
from indexer.settings import ColdSettings, HotSettings
from nearline.ask.connections import Connections
from nearline.errors import NoRoom, NotRunning
from nearline.generations.local_files import cold_folder
from nearline.generations.room import Free
from nearline.settings.instance import Instance
from nearline.settings.settings import Settings
from nearline.up import room_beside
from nearline.up.build import build
from nearline.up.build_place import build_cold, build_encode
from nearline.up.failure_reports import StartTracker, failure_report_of, write_failure_report
from nearline.up.residence import Resident
from nearline.up.room_beside import (
    refuse_build_without_room,
    refuse_encode_without_room,
    refuse_serve_without_room,
)
from schemas.generations import Canary, GenerationRecord, PackageSource, Pointer, State
from schemas.ids import Generation
from schemas.topics import core_topics, generation_topics
from streams.generations import acts
from streams.generations.acts import Package
from streams.generations.log import change_generations
from streams.generations.state import Generations
from streams.kafka.heartbeat import NO_HEARTBEAT
from streams.kafka.topics import ensure_topics
from streams.settings import EncodeSettings, KafkaSettings
from tests.kit.data.generations import AT, founded, generation_record
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.packages import make_tiny_package

MB = 1_000_000


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return make_tiny_package(tmp_path_factory.mktemp("models") / "b", hidden=16, layers=1)


class Machine:
    """What is free on it."""

    def __init__(self) -> None:
        self.memory = self.disk = 100_000 * MB


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    free = Free(lambda: machine.memory, lambda: machine.disk, lambda _: 0)
    monkeypatch.setattr(room_beside, "free_here", lambda _: free)
    return machine


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A hot tier of a thousand posts, on a CPU."""
    hot = HotSettings(capacity=1_000, device="cpu")
    return Settings(data_dir=tmp_path, encode=EncodeSettings(device="cpu"), hot=hot)


def resident(package: ModelPackage, state: State = "building", **fields: bool) -> Resident:
    record = generation_record(package.generation, state, "green", **fields)
    log = founded().with_records([record])
    return Resident(record, package, lambda: log)


class TestAProcessOfAPlace:
    def test_it_refuses_before_it_opens_anything(
        self, machine: Machine, settings: Settings, package: ModelPackage
    ) -> None:
        machine.memory = 10 * MB
        with pytest.raises(NoRoom, match=r"^this machine has no room for the generation .*: this process needs about"):
            build_encode(settings, "encode-green-0", resident(package), lambda _: NO_HEARTBEAT)
        with pytest.raises(NoRoom, match="repeat the build with --force"):
            build_cold(settings, "cold-green", resident(package), NO_HEARTBEAT)
        assert not cold_folder(settings.data_dir, package.generation).exists()

    @pytest.mark.parametrize(("state", "ignores"), [("building", True), ("ready", False), ("serving", False)])
    def test_what_is_complete_or_built_by_force_starts_whatever_is_free(
        self, machine: Machine, settings: Settings, package: ModelPackage, state: State, ignores: bool
    ) -> None:
        machine.memory = 0
        refuse_encode_without_room(settings, resident(package, state, ignores_room=ignores), 0)

    def test_the_index_stage_needs_no_weights_on_its_machine(
        self, machine: Machine, settings: Settings, package: ModelPackage, tmp_path: Path
    ) -> None:
        shutil.copy(package.folder / MANIFEST_FILE, tmp_path)
        room_beside.refuse_cold_without_room(settings, resident(ModelPackage.read(tmp_path)))

    def test_after_a_restart_it_needs_no_disk_for_what_it_has_indexed(
        self, machine: Machine, settings: Settings, package: ModelPackage
    ) -> None:
        """The serving one's package is not here, so its files count as those of the same dimension. A file takes whole
        blocks, so a little more than its length."""
        machine.disk = 2 * MB
        write(cold_folder(settings.data_dir, Generation("a-1")) / "posts" / "0" / "vectors", 3 * MB)
        with pytest.raises(NoRoom, match="about 4 MB of disk, of which 2 MB are free and 2 MB are missing"):
            build_cold(settings, "cold-green", resident(package), NO_HEARTBEAT)
        write(cold_folder(settings.data_dir, package.generation) / "posts" / "0" / "vectors", 2 * MB)
        room_beside.refuse_cold_without_room(settings, resident(package))


class TestTheRetriever:
    """Of the package's 16 numbers a post takes 64 bytes, and 250 more. Its weights are smaller than a MB."""

    POSTS = 1_000

    @pytest.fixture
    def beside(self, package: ModelPackage) -> GenerationRecord:
        return opened(package, generation_record(package.generation, "ready", "green"))

    @pytest.fixture
    def log(self, package: ModelPackage, beside: GenerationRecord) -> Generations:
        return founded().with_records([opened(package, generation_record("a-1")), beside])

    def test_it_does_not_open_what_is_ready_where_that_would_not_fit(
        self, machine: Machine, settings: Settings, log: Generations, beside: GenerationRecord
    ) -> None:
        machine.memory = 0
        with pytest.raises(NoRoom, match=r"the retriever needs about 1 MB of memory, of .* the build with --force"):
            refuse_serve_without_room(settings, log, beside, self.POSTS)
        machine.memory, machine.disk = 1 * MB, 0
        with pytest.raises(NoRoom, match="the retriever needs about 1 MB of disk"):
            refuse_serve_without_room(settings, log, beside, self.POSTS)
        machine.disk = 1 * MB
        refuse_serve_without_room(settings, log, beside, self.POSTS)

    def test_its_processes_open_it_together(
        self, machine: Machine, settings: Settings, log: Generations, beside: GenerationRecord
    ) -> None:
        four = settings.model_copy(update={"serve": settings.serve.model_copy(update={"workers": 4})})
        machine.memory = 1 * MB
        refuse_serve_without_room(settings, log, beside, self.POSTS)
        with pytest.raises(NoRoom):
            refuse_serve_without_room(four, log, beside, self.POSTS)

    def test_what_the_serving_one_is_still_filling_is_not_free(
        self, machine: Machine, settings: Settings, log: Generations, beside: GenerationRecord
    ) -> None:
        """As after a restart: what it will hold is what it may hold."""
        machine.disk = 1 * MB
        refuse_serve_without_room(settings, log, beside, self.POSTS)
        with pytest.raises(NoRoom, match="about 2 MB of disk"):
            refuse_serve_without_room(settings, log, beside, None)

    @pytest.mark.parametrize("fields", [{"state": "serving"}, {"state": "kept"}, {"ignores_room": True}])
    def test_what_may_be_asked_or_was_built_by_force_is_opened_whatever_is_free(
        self, machine: Machine, settings: Settings, log: Generations, beside: GenerationRecord, fields: dict[str, Any]
    ) -> None:
        machine.memory = 0
        record = replace(beside, **fields)
        refuse_serve_without_room(settings, log.with_records([record]), record, self.POSTS)

    def test_a_canary_is_opened_too(
        self, machine: Machine, settings: Settings, log: Generations, beside: GenerationRecord
    ) -> None:
        machine.memory = 0
        pointer = Pointer(Generation("a-1"), canary=Canary(beside.id, 0.05, AT))
        refuse_serve_without_room(settings, log.with_records([pointer]), beside, self.POSTS)


def opened(package: ModelPackage, record: GenerationRecord) -> GenerationRecord:
    """With a package that is here."""
    return replace(record, package=PackageSource(folder=str(package.folder)), digest=package.digest)


def write(file: Path, size: int) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x" * size)


class TestTheCommand:
    @pytest.fixture
    def connections(self, settings: Settings) -> Connections:
        instance = Instance(1, "", "a-1", "", None, None, True, [], "")
        return Connections(settings, lambda: instance)

    @pytest.fixture
    def found(self, package: ModelPackage) -> Package:
        return Package(package.generation, PackageSource(folder=str(package.folder)), package.digest)

    def test_it_asks_for_all_processes_together(
        self, machine: Machine, connections: Connections, found: Package
    ) -> None:
        """Encode 620 MB, cold 46 MB, and 0.3 MB for a thousand posts in the hot tier."""
        machine.memory = 666 * MB
        with pytest.raises(NoRoom, match="its processes need about 667 MB of memory, of which 666 MB are free"):
            refuse_build_without_room(connections, found, founded())
        machine.memory = 668 * MB
        refuse_build_without_room(connections, found, founded())

    def test_with_a_qdrant_server_nothing_of_the_cold_tier_is_here(
        self, machine: Machine, connections: Connections, found: Package
    ) -> None:
        machine.memory = 622 * MB
        connections.settings = connections.settings.model_copy(update={"cold": ColdSettings(url="http://127.0.0.1:1")})
        refuse_build_without_room(connections, found, founded())

    def test_the_topics_of_the_serving_one_at_the_embedded_broker_count(
        self, machine: Machine, connections: Connections, found: Package
    ) -> None:
        log = connections.settings.data_dir / "kafka" / "log"
        write(log / "post-embeddings.a-1-0" / "0.log", 3 * MB)
        write(log / "post-embeddings.a-10-0" / "0.log", 3 * MB)
        machine.disk = 3 * MB
        with pytest.raises(NoRoom, match="about 4 MB of disk, of which 3 MB are free"):
            refuse_build_without_room(connections, found, founded())
        machine.disk = 4 * MB
        refuse_build_without_room(connections, found, founded())

    def test_what_the_kept_one_has_becomes_free(
        self, machine: Machine, connections: Connections, found: Package, package: ModelPackage
    ) -> None:
        machine.memory = 0
        kept = generation_record("c-3", "kept", "green")
        state = Generations({**founded().records, kept.id: kept}, Pointer(Generation("a-1"), kept.id))
        with pytest.raises(NoRoom):
            refuse_build_without_room(connections, found, state)
        refuse_build_without_room(connections, found, state.with_records([opened(package, kept)]))

    def test_on_another_machine_than_the_instance_it_asks_nothing(
        self, machine: Machine, settings: Settings, found: Package
    ) -> None:
        machine.memory = 0

        def nowhere() -> Instance:
            raise NotRunning(settings.data_dir)

        refuse_build_without_room(Connections(settings, nowhere), found, founded())


@pytest.mark.broker
def test_a_process_without_room_starts_when_the_build_is_repeated_by_force(
    clean_topics: RunningBroker, machine: Machine, settings: Settings, package: ModelPackage
) -> None:
    """As on a machine of a cluster, where no command could ask."""
    kafka = KafkaSettings(bootstrap_servers=clean_topics.bootstrap_servers, partitions=1)
    ensure_topics(kafka, (*core_topics(), *generation_topics(package.generation)))
    source = PackageSource(folder=str(package.folder))
    first = Package(Generation("a-1"), source, package.digest)
    second = Package(package.generation, source, package.digest)
    change_generations(kafka, lambda state: acts.found(state, first, acts.acting("test")))
    change_generations(kafka, lambda state: acts.build(state, second, {}, acts.acting("test")))
    machine.memory, settings = 0, settings.model_copy(update={"kafka": kafka})
    for _ in range(2):
        with pytest.raises(NoRoom) as refused:
            build("cold-green", settings, StartTracker(), lambda _: None)
    write_failure_report(refused.value, "cold-green", settings.data_dir, at_start=True)
    report = failure_report_of(settings.data_dir, "cold-green")(os.getpid())
    assert report is not None
    assert report.sentence == str(refused.value)
    change_generations(kafka, lambda state: acts.build(state, second, {}, acts.acting("test"), force=True))
    stopped = Event()
    stopped.set()
    build("cold-green", settings, StartTracker(), lambda _: None)(stopped)
    assert cold_folder(settings.data_dir, package.generation).exists()
