"""Which package `nearline up` serves, by its settings and the log of the generations on a real broker."""

import shutil
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from encoders.package.model_package import ModelPackage
from nearline.errors import StartFailed
from nearline.settings.settings import Settings
from nearline.up.serving_package import ensure_core_topics, serving_package
from schemas.errors import NewerForm
from schemas.generations import GenerationRecord, PackageSource, Pointer
from schemas.topics import FORMS, GENERATIONS, TopicSpec, core_topics, generation_topics
from streams.errors import ActRefused
from streams.generations import acts
from streams.generations.log import change_generations, read_generations
from streams.kafka.offsets import OffsetReader
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings
from tests.kit.data.generations import AT
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.topics import Sender, keys_and_values
from tests.kit.packages import make_tiny_package
from trainer.publishing.registry import Registry

pytestmark = pytest.mark.broker

BY = acts.By("test", AT, "to see")


class Packages(NamedTuple):
    first: ModelPackage
    second: ModelPackage


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(Packages._fields):
        make_tiny_package(folder / name, hidden=16, layers=1, seed=seed)
    return Packages(*(ModelPackage.load(folder / name) for name in Packages._fields))


@pytest.fixture
def settings(clean_topics: RunningBroker) -> Settings:
    kafka = KafkaSettings(bootstrap_servers=clean_topics.bootstrap_servers, partitions=1)
    ensure_topics(kafka, core_topics())
    return Settings(kafka=kafka)


def serving(settings: Settings) -> GenerationRecord:
    record = read_generations(settings.kafka).serving
    assert record is not None
    return record


def build_second(settings: Settings, packages: Packages) -> None:
    package = acts.Package(
        packages.second.generation, PackageSource(folder=str(packages.second.folder)), packages.second.digest
    )
    change_generations(settings.kafka, lambda state: acts.build(state, package, {}, BY))


def promote_second(settings: Settings, packages: Packages) -> None:
    generation = packages.second.generation
    change_generations(settings.kafka, lambda state: acts.ready(state, generation, BY))
    change_generations(settings.kafka, lambda state: acts.promote(state, generation, BY, force=True))


def test_the_first_package_is_founded_and_then_the_log_names_it(settings: Settings, packages: Packages) -> None:
    assert serving_package(settings, packages.first) == packages.first
    record = serving(settings)
    assert (record.id, record.place, record.digest) == (packages.first.generation, "blue", packages.first.digest)
    assert record.package == PackageSource(folder=str(packages.first.folder))
    written = keys_and_values(settings.kafka, GENERATIONS)
    assert [serving_package(settings, named) for named in (packages.first, None)] == [packages.first] * 2
    assert keys_and_values(settings.kafka, GENERATIONS) == written


def test_without_any_package_it_is_the_demos_wherever_that_is_installed_now(settings: Settings) -> None:
    demo = serving_package(settings, None)
    assert demo.folder == settings.package_folder.absolute()
    moved = replace(serving(settings), package=PackageSource(folder="/gone"))
    change_generations(settings.kafka, lambda _: [moved])
    assert serving_package(settings, None) == demo


def test_another_package_is_refused_with_the_command_that_builds_it(settings: Settings, packages: Packages) -> None:
    serving_package(settings, packages.first)
    build = f"nearline generations build {packages.second.folder}$"
    with pytest.raises(ActRefused, match=rf"{packages.first.generation} serves here.*start without --package.*{build}"):
        serving_package(settings, packages.second)
    build_second(settings, packages)
    promote = f"start without --package.*nearline generations promote {packages.second.generation}"
    with pytest.raises(ActRefused, match=f"is building, and does not serve yet; {promote}"):
        serving_package(settings, packages.second)
    assert serving(settings).id == packages.first.generation


def test_settings_may_go_on_naming_what_was_replaced(settings: Settings, packages: Packages) -> None:
    """The command line of a service stays as it was when the model is replaced. So a restart must not fail."""
    serving_package(settings, packages.first)
    build_second(settings, packages)
    promote_second(settings, packages)
    assert [serving_package(settings, named) for named in (packages.first, None)] == [packages.second] * 2


def test_a_folder_that_is_gone_or_holds_something_else_is_named(
    settings: Settings, packages: Packages, tmp_path: Path
) -> None:
    folder = tmp_path / "package"
    shutil.copytree(packages.first.folder, folder)
    serving_package(settings, ModelPackage.load(folder))
    shutil.rmtree(folder)
    with pytest.raises(StartFailed, match=rf"{packages.first.generation} is gone: {folder} is no model.*bring it back"):
        serving_package(settings, None)
    shutil.copytree(packages.second.folder, folder)
    with pytest.raises(
        StartFailed, match=rf"{packages.first.generation} is gone: .* holds {packages.second.generation} now"
    ):
        serving_package(settings, None)
    assert serving_package(settings, packages.first) == packages.first, "elsewhere, as --package says"


def test_a_package_in_a_registry_is_fetched_once(settings: Settings, packages: Packages, tmp_path: Path) -> None:
    Registry(str(tmp_path / "registry")).publish(packages.first, {})
    serving_package(settings, packages.first)
    record = replace(serving(settings), package=PackageSource(registry=str(tmp_path / "registry")))
    change_generations(settings.kafka, lambda _: [record])
    here = settings.model_copy(update={"data_dir": tmp_path / "data"})
    fetched = serving_package(here, None)
    assert (fetched.digest, fetched.folder.parent) == (packages.first.digest, tmp_path / "data" / "packages")
    shutil.rmtree(tmp_path / "registry")
    assert serving_package(here, None) == fetched


def test_what_a_version_without_the_log_served_is_founded(settings: Settings, packages: Packages) -> None:
    ensure_topics(settings.kafka, generation_topics(packages.first.generation))
    for named in (packages.second, None):
        with pytest.raises(
            StartFailed, match=f"an earlier version served {packages.first.generation} here.*start once"
        ):
            serving_package(settings, named)
    assert read_generations(settings.kafka).serving is None
    assert serving_package(settings, packages.first) == packages.first
    assert serving(settings).id == packages.first.generation


def test_a_damaged_record_does_not_keep_it_from_starting(settings: Settings, packages: Packages) -> None:
    serving_package(settings, packages.first)
    Sender(settings.kafka).send(GENERATIONS, [("pointer", b"???")])
    assert serving_package(settings, None) == packages.first
    assert read_generations(settings.kafka).pointer == Pointer(packages.first.generation)


def test_a_cluster_of_a_newer_version_is_left_alone(clean_topics: RunningBroker) -> None:
    kafka = KafkaSettings(bootstrap_servers=clean_topics.bootstrap_servers, partitions=1)
    ensure_topics(kafka, [TopicSpec(FORMS, "state", partitions=1)])
    Sender(kafka).send(FORMS, [("embeddings", b"2")])
    with pytest.raises(NewerForm, match="has embeddings of form 2, and this version reads them up to form 1"):
        ensure_core_topics(kafka)
    with closing(OffsetReader(kafka)) as reader:
        assert reader.places(spec.name for spec in core_topics() if spec.name != FORMS) == []
    assert keys_and_values(kafka, FORMS) == [(b"embeddings", b"2")]
