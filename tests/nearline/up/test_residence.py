"""A process that works for whichever generation lives at its place, on a real log."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import pytest

from encoders.package.model_package import ModelPackage
from nearline.errors import PackageGone, PlaceChanged
from nearline.settings.settings import Settings
from nearline.up.residence import Resident, Run, at_place
from schemas.generations import PackageSource, PlaceName
from schemas.ids import Generation
from schemas.topics import core_topics
from streams.generations import acts
from streams.generations.log import change_generations
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings
from tests.kit.data.generations import AT
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.packages import make_tiny_package

pytestmark = pytest.mark.broker

BY = acts.By("test", AT, "to see")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return make_tiny_package(tmp_path_factory.mktemp("models") / "first", hidden=16, layers=1)


@pytest.fixture
def settings(clean_topics: RunningBroker, package: ModelPackage, tmp_path: Path) -> Settings:
    """`a-1` serves at blue."""
    kafka = KafkaSettings(bootstrap_servers=clean_topics.bootstrap_servers, partitions=1)
    ensure_topics(kafka, core_topics())
    found = acts.Package(Generation("a-1"), PackageSource(folder=str(package.folder)), package.digest)
    change_generations(kafka, lambda state: acts.found(state, found, BY))
    return Settings(kafka=kafka, data_dir=tmp_path)


def build(settings: Settings, package: ModelPackage, name: str = "b-2") -> None:
    built = acts.Package(Generation(name), PackageSource(folder=str(package.folder)), package.digest)
    change_generations(settings.kafka, lambda state: acts.build(state, built, {}, acts.acting("test")))


class Process:
    """One that says for which generation it was put together, and how it ended."""

    def __init__(self, settings: Settings, place: PlaceName) -> None:
        self.built: Queue[Resident] = Queue()
        self.ended: Queue[Exception | None] = Queue()
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(settings, place))

    def _run(self, settings: Settings, place: PlaceName) -> None:
        try:
            at_place(settings, place, self._build)(self.stop)
        except Exception as error:
            self.ended.put(error)
        else:
            self.ended.put(None)

    def _build(self, resident: Resident) -> Run:
        self.built.put(resident)
        return lambda stop: stop.wait(60) and None

    @contextmanager
    def running(self) -> Iterator["Process"]:
        self._thread.start()
        try:
            yield self
        finally:
            self.stop.set()
            self._thread.join(60)


def test_it_works_for_whoever_lives_there_until_that_one_leaves(settings: Settings, package: ModelPackage) -> None:
    with Process(settings, "blue").running() as blue, Process(settings, "green").running() as green:
        assert blue.built.get(timeout=60).record.id == "a-1"
        build(settings, package)
        resident = green.built.get(timeout=60)
        assert (resident.record.id, resident.package.folder) == ("b-2", package.folder)
        change_generations(settings.kafka, lambda state: acts.ready(state, Generation("b-2"), BY))
        change_generations(settings.kafka, lambda state: acts.promote(state, Generation("b-2"), BY, force=True))
        change_generations(settings.kafka, lambda state: acts.retire(state, Generation("a-1"), BY, force=True))
        left = blue.ended.get(timeout=60)
        assert isinstance(left, PlaceChanged)
        assert str(left) == "the generation a-1 does not live at blue any more"
        green.stop.set()
        assert green.ended.get(timeout=60) is None, "a promotion restarts nothing"


def test_another_life_of_the_same_generation_is_not_the_one_it_worked_for(
    settings: Settings, package: ModelPackage
) -> None:
    build(settings, package)
    with Process(settings, "green").running() as process:
        process.built.get(timeout=60)
        change_generations(settings.kafka, lambda state: acts.retire(state, Generation("b-2"), BY))
        build(settings, package)
        assert isinstance(process.ended.get(timeout=60), PlaceChanged)


def test_a_package_that_is_not_on_this_machine_is_named(settings: Settings, package: ModelPackage) -> None:
    build(settings, package, "c-3")
    elsewhere = acts.Package(Generation("d-4"), PackageSource(folder="/nowhere"), package.digest)
    change_generations(settings.kafka, lambda state: acts.retire(state, Generation("c-3"), BY))
    change_generations(settings.kafka, lambda state: acts.build(state, elsewhere, {}, BY))
    with Process(settings, "green").running() as process:
        failure = process.ended.get(timeout=60)
    assert isinstance(failure, PackageGone)
    assert "d-4 is gone: /nowhere is no model package" in str(failure)
