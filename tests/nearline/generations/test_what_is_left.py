"""What is there after a crash between any two steps of build and retire, and what a removal takes away, on a real
broker. No stage runs, so nothing is filled."""

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer

from encoders.package.model_package import ModelPackage
from indexer.cold.edge import folder
from nearline.generations import building, retiring
from nearline.generations import packages as packages_module
from nearline.generations.local_files import cold_folder
from nearline.generations.retiring import remove_left_behind, remove_retired, remove_unbuilt
from nearline.settings.settings import Settings
from nearline.up import room_beside
from schemas import topics
from schemas.generations import PackageSource
from schemas.ids import Generation
from schemas.topics import encode_group, index_group
from streams.errors import ActRefused, StillFed
from streams.generations import acts
from streams.generations.log import change_generations
from streams.kafka.clients import consumer_config
from streams.kafka.crash_points import EXIT_STATUS
from streams.kafka.offsets import OffsetReader
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.topics import produce
from tests.kit.packages import make_tiny_package
from tests.kit.waiting import until
from tests.nearline.generations.cluster import BY, PLENTY, Cluster, Crashing, Packages

pytestmark = pytest.mark.broker

ACT_IS_DONE = "generations.committed"


def test_a_crash_between_any_two_steps_leaves_a_state_from_which_the_same_command_goes_on(
    cluster: Cluster, crashing: Crashing
) -> None:
    """Twice at each point. Those within an act are tried in the tests of the log."""
    generation = cluster.second.generation
    build, retire = ("build", generation, "--registry", str(cluster.registry)), ("retire", generation)
    again = [EXIT_STATUS, EXIT_STATUS]
    assert [crashing.run("generations.topics-made", *build) for _ in range(2)] == again
    assert (cluster.record(), cluster.left()) == (None, {"topics"})
    assert [crashing.run(ACT_IS_DONE, *build) for _ in range(2)] == [EXIT_STATUS, 0]
    built = cluster.record()
    assert cluster.build("--json").json == {"id": generation}
    assert cluster.record() == built, "running it again goes on and changes nothing"
    assert built is not None
    assert (built.state, built.place, built.goal[topics.POST_CONTEXTS]) == ("building", "green", {0: 3})
    assert [act.what for act in built.history] == ["build"]
    cluster.fill()
    assert crashing.run(ACT_IS_DONE, *retire) == EXIT_STATUS
    assert cluster.left() == {"topics", "files", encode_group(generation), index_group(generation)}
    for point in ("generations.groups-deleted", "generations.files-removed", "generations.topics-deleted"):
        assert [crashing.run(point, *retire) for _ in range(2)] == again
    assert cluster.run(*retire).out == f"{generation} is retired, and nothing of it is left\n"
    assert cluster.left() == set()
    retired = cluster.record()
    assert retired is not None
    assert [act.what for act in retired.history] == ["build", "retire"]


def test_what_an_earlier_life_has_left_is_removed_before_the_next_one(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever retired it was killed right after."""
    monkeypatch.setattr(room_beside, "free_here", lambda _: PLENTY)
    generation = cluster.second.generation
    with cluster.with_instance():
        cluster.build_plainly()
        cluster.fill()
        produce(cluster.kafka, topics.post_embeddings(generation), 0, 7)
        change_generations(cluster.kafka, lambda state: acts.retire(state, generation, BY))
        assert cluster.build_plainly().status == 0
    assert cluster.left() == {"topics", "files"}, "the package was fetched again"
    with closing(OffsetReader(cluster.kafka, 30)) as reader:
        _, ends = reader.bounds([topics.post_embeddings(generation)])
    assert set(ends.values()) == {0}
    record = cluster.record()
    assert record is not None
    assert [act.what for act in record.history] == ["build", "retire", "build"]


def test_the_next_build_retires_the_kept_one_and_removes_it(
    cluster: Cluster, packages: Packages, tmp_path: Path
) -> None:
    third = make_tiny_package(tmp_path / "c", hidden=16, layers=1, seed=3)
    cluster.build()
    assert "is still being built" in cluster.run("promote", cluster.second.generation).err
    cluster.make_ready()
    promoted = cluster.run("promote", cluster.second.generation, "--canary", "5%", "--force", "--reason", "a test")
    first, second = cluster.first.generation, cluster.second.generation
    assert promoted.out == f"{first} serves, {second} answers 5 % of the members\n"
    assert cluster.run("rollback").out == f"{first} serves\n"
    promoted = cluster.run("promote", second, "--force", "--reason", "a test", "--by", "somebody")
    assert promoted.out == f"{second} serves, {first} is kept\n"
    assert "is serving and complete" in cluster.build().err
    assert cluster.left() == {"topics", "files"}, "a build that is refused takes nothing from what lives"
    assert cluster.run("rollback").out == f"{first} serves, {second} is kept\n"
    assert cluster.run("build", str(third.folder)).out == f"{third.generation}\n"
    assert cluster.left() == set()
    record = cluster.record()
    assert record is not None
    assert record.state == "retired"
    assert ("promote", "somebody", "a test") in [(act.what, act.who, act.reason) for act in record.history]


def test_nothing_is_removed_while_a_process_still_works_for_it(cluster: Cluster) -> None:
    generation = cluster.second.generation
    cluster.build()
    cluster.fill()
    retired = cluster.retire()
    settings = Settings(data_dir=cluster.data_dir)
    consumer = Consumer(consumer_config(cluster.kafka, index_group(generation)))
    consumer.subscribe([topics.post_embeddings(generation)])
    try:
        until(lambda: consumer.poll(0.1) is None and bool(consumer.assignment()), "it to be in the group", 60)
        with pytest.raises(
            StillFed, match=rf"still works for the retired generation {generation}.*index\.{generation}"
        ):
            remove_retired(settings, cluster.kafka, retired, leave_s=0.0)
        assert {"topics", "files", index_group(generation)} <= cluster.left()
    finally:
        consumer.close()
    lock = folder.lock(cold_folder(cluster.data_dir, generation))
    try:
        with pytest.raises(StillFed, match="uses the cold tier's folder; stop the process"):
            remove_retired(settings, cluster.kafka, retired, leave_s=0.0)
        assert cluster.left() == {"topics", "files"}
    finally:
        os.close(lock)
    remove_retired(settings, cluster.kafka, retired)
    assert cluster.left() == set()


@pytest.mark.parametrize(
    ("step", "is_left_behind"), [("delete_groups", False), ("_remove_files", False), ("delete_groups", True)]
)
def test_a_removal_that_hung_leaves_what_was_built_again_meanwhile(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, step: str, *, is_left_behind: bool
) -> None:
    cluster.build()
    cluster.fill()
    retired, settings = cluster.retire(), Settings(data_dir=cluster.data_dir)
    do_step = getattr(retiring, step)

    def hang(*arguments: Any) -> None:
        do_step(*arguments)
        patch.undo()
        assert cluster.build().status == 0

    with monkeypatch.context() as patch:
        patch.setattr(retiring, step, hang)
        if is_left_behind:
            remove_left_behind(settings, cluster.kafka)
        else:
            with pytest.raises(ActRefused, match="was built again while what it had before was removed"):
                remove_retired(settings, cluster.kafka, retired)
    record = cluster.record()
    assert record is not None
    assert record.state == "building"
    assert cluster.left() == {"topics", "files"}
    with pytest.raises(ActRefused, match="was built again"):
        remove_retired(settings, cluster.kafka, retired)
    assert cluster.left() == {"topics", "files"}


def check_built_again_during(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, step: str, ends: Callable[[Generation], object]
) -> None:
    """The second one is built again while this step of its removal runs, which ends so."""
    cluster.build()
    retired = cluster.retire()

    def run_step(*_: object) -> object:
        patch.undo()
        assert cluster.build().status == 0
        return ends(retired.id)

    with monkeypatch.context() as patch:
        patch.setattr(retiring, step, run_step)
        with pytest.raises(ActRefused, match="was built again"):
            remove_retired(Settings(data_dir=cluster.data_dir), cluster.kafka, retired)
    assert cluster.left() == {"topics", "files"}


def test_it_does_not_wait_until_what_was_built_again_closes_its_cold_tier(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_built_again_during(cluster, monkeypatch, "remove_local_files", lambda _: False)


def test_nobody_is_told_to_stop_the_processes_of_what_was_built_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_them_in_its_groups(generation: Generation) -> None:
        raise StillFed.of_generation(generation, [encode_group(generation)], 90.0)

    check_built_again_during(cluster, monkeypatch, "delete_groups", find_them_in_its_groups)


def test_a_removal_between_the_steps_of_a_build_takes_no_topics_from_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It began before the build, and the log does not say yet that the generation is built again."""
    cluster.build()
    retired = cluster.retire()
    ends = building._ends_of_contexts

    def remove_first(*arguments: Any) -> acts.Goal:
        remove_retired(Settings(data_dir=cluster.data_dir), cluster.kafka, retired)
        assert "topics" not in cluster.left()
        return ends(*arguments)

    monkeypatch.setattr(building, "_ends_of_contexts", remove_first)
    assert cluster.build().status == 0
    with closing(OffsetReader(cluster.kafka, 30)) as reader:
        names = [spec.name for spec in topics.generation_topics(cluster.second.generation)]
        assert {place.topic for place in reader.places(names)} == set(names)


def test_what_a_killed_build_has_left_can_be_retired(cluster: Cluster, crashing: Crashing) -> None:
    """Nobody repeats the build, so nothing of the generation is in the log."""
    generation = cluster.second.generation
    build, retire = ("build", generation, "--registry", str(cluster.registry)), ("retire", generation)
    with cluster.with_instance():
        assert crashing.run("generations.topics-made", *build) == EXIT_STATUS
        assert crashing.run("generations.topics-deleted", *retire) == EXIT_STATUS
    assert cluster.left() == {"files"}
    assert cluster.run(*retire).out == f"{generation} was never built, and nothing of it is left\n"
    assert cluster.left() == set()
    assert f"there is no generation {generation}" in cluster.run(*retire).err


def test_a_folder_is_no_generation_and_is_never_removed(cluster: Cluster, tmp_path: Path) -> None:
    """Whoever has built a folder may want to retire it by the same name."""
    package = Path(shutil.copytree(cluster.second.folder, tmp_path / "mine"))
    fetched = packages_module.packages_folder(cluster.data_dir) / cluster.first.generation
    fetched.mkdir(parents=True)
    for path in (str(package), os.path.relpath(package, fetched.parent), "..", ".", ""):
        refused = cluster.run("retire", path)
        assert (refused.status, refused.out) == (1, "")
        assert f"there is no generation {path}" in refused.err
    assert ModelPackage.load(package).generation == cluster.second.generation
    assert fetched.exists()


def test_a_build_that_is_refused_because_another_one_came_first_leaves_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = acts.Package(Generation("third-3"), PackageSource(folder="/models/third"), "digest of the third")
    ends = building._ends_of_contexts

    def build_the_third_first(*arguments: Any) -> acts.Goal:
        assert cluster.left() == {"topics", "files"}
        change_generations(cluster.kafka, lambda state: acts.build(state, third, {}, BY))
        return ends(*arguments)

    monkeypatch.setattr(building, "_ends_of_contexts", build_the_third_first)
    refused = cluster.build()
    assert refused.status == 1
    assert "the generation third-3 is building already" in refused.err
    assert cluster.left() == set()


def test_topics_of_a_version_that_had_no_log_stay_until_their_generation_is_founded(
    clean_topics: RunningBroker, tmp_path: Path
) -> None:
    kafka = KafkaSettings(bootstrap_servers=clean_topics.bootstrap_servers, partitions=1)
    served = Generation("served-1")
    ensure_topics(kafka, (*topics.core_topics(), *topics.generation_topics(served)))
    assert not remove_unbuilt(Settings(data_dir=tmp_path), kafka, served)
    with closing(OffsetReader(kafka, 30)) as reader:
        assert reader.generations() == [served]
