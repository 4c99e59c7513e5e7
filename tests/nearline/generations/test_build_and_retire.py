"""The commands that change generations, on a real broker: what they refuse, and what is there after a crash between any
two steps. No stage runs, so nothing is filled."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Consumer

from encoders.package.manifest import MANIFEST_FILE
from encoders.package.model_package import ModelPackage
from indexer.cold.edge import folder
from nearline.generations import building, retiring
from nearline.generations import packages as packages_module
from nearline.generations.local_files import cold_folder, has_local_files
from nearline.generations.retiring import remove_left_behind, remove_retired, remove_unbuilt
from nearline.generations.room import Free
from nearline.settings.instance import Instance, locked, write_instance
from nearline.settings.settings import Settings
from nearline.up import room_beside
from schemas import topics
from schemas.generations import GenerationRecord, PackageSource
from schemas.ids import Generation
from schemas.topics import encode_group, index_group
from streams.errors import ActRefused, KafkaUnavailable, StillFed
from streams.generations import acts
from streams.generations.log import change_generations, read_generations
from streams.generations.progress import Progress
from streams.generations.state import Generations
from streams.kafka.clients import admin, consumer_config
from streams.kafka.crash_points import EXIT_STATUS
from streams.kafka.offsets import OffsetReader
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings
from tests.kit.commands import CommandResult, Commands
from tests.kit.data.generations import AT
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.groups import commit
from tests.kit.kafka.topics import produce
from tests.kit.packages import make_tiny_package
from tests.kit.waiting import until
from trainer.publishing.registry import Registry

pytestmark = pytest.mark.broker

BY = acts.By("test", AT, "to see")
ACT_IS_DONE = "generations.committed"


PLENTY = Free(lambda: 10**12, lambda: 10**12, lambda _: 10**12)


class Packages(NamedTuple):
    first: ModelPackage
    second: ModelPackage
    registry: Path
    """Holds the second one."""


class Cluster(NamedTuple):
    """`first` serves, and `second` lies in a registry."""

    kafka: KafkaSettings
    broker: RunningBroker
    data_dir: Path
    registry: Path
    first: ModelPackage
    second: ModelPackage

    def run(self, *words: str) -> CommandResult:
        return Commands(self.data_dir)("generations", *words)

    def build(self, *more: str) -> CommandResult:
        """On the machine of an instance, which fetches the package."""
        with self.with_instance():
            return self.build_plainly(*more)

    def build_plainly(self, *more: str) -> CommandResult:
        """With no other instance than the one that the test itself has made."""
        return self.run("build", self.second.generation, "--registry", str(self.registry), *more)

    def record(self) -> GenerationRecord | None:
        """Of the second one."""
        return read_generations(self.kafka).records.get(self.second.generation)

    def retire(self) -> GenerationRecord:
        """In the log alone."""
        generation, by = self.second.generation, acts.acting("test", "to see")
        return change_generations(self.kafka, lambda state: acts.retire(state, generation, by)).records[generation]

    def make_ready(self) -> None:
        change_generations(self.kafka, lambda state: acts.ready(state, self.second.generation, BY))

    def fill(self) -> None:
        """As its processes would, a little."""
        generation = self.second.generation
        commit(self.broker, encode_group(generation), {(topics.POST_CONTEXTS, 0): 1})
        commit(self.broker, index_group(generation), {(topics.post_embeddings(generation), 0): 0})
        for made in (cold_folder(self.data_dir, generation), self.data_dir / "hot" / generation):
            made.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def with_instance(self) -> Iterator[None]:
        """An instance runs on the data folder, as far as commands can tell."""
        with locked(self.data_dir):
            instance = Instance(os.getpid(), "", self.first.generation, "", None, None, True, [], "")
            write_instance(self.data_dir, instance)
            yield

    def left(self) -> set[str]:
        """What is there of the second one."""
        generation = self.second.generation
        with closing(OffsetReader(self.kafka, 30)) as reader:
            left = {"topics"} if generation in reader.generations() else set()
        client = admin(self.kafka)  # it must live until the answer is there
        groups = client.list_consumer_groups(request_timeout=30).result().valid
        left |= {group.group_id for group in groups} & {encode_group(generation), index_group(generation)}
        return left | ({"files"} if has_local_files(self.data_dir, generation) else set())


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    folder = tmp_path_factory.mktemp("models")
    first, second = (make_tiny_package(folder / name, hidden=16, layers=1, seed=seed) for seed, name in enumerate("ab"))
    Registry(str(folder / "registry")).publish(second, {})
    return Packages(first, second, folder / "registry")


@pytest.fixture
def cluster(
    clean_topics: RunningBroker,
    packages: Packages,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Cluster:
    monkeypatch.setenv("NEARLINE_KAFKA__BOOTSTRAP_SERVERS", str(clean_topics.bootstrap_servers))
    monkeypatch.setenv("NEARLINE_KAFKA__PARTITIONS", "1")
    kafka = KafkaSettings(bootstrap_servers=clean_topics.bootstrap_servers, partitions=1)
    ensure_topics(kafka, topics.core_topics())
    first, second, registry = packages
    found = acts.Package(first.generation, PackageSource(folder=str(first.folder)), first.digest)
    change_generations(kafka, lambda state: acts.found(state, found, BY))
    produce(kafka, topics.POST_CONTEXTS, 0, 3)
    return Cluster(kafka, clean_topics, tmp_path, registry, first, second)


class Crashing:
    def __init__(self, process: "subprocess.Popen[str]", cluster: Cluster) -> None:
        self._process = process
        self._cluster = cluster

    def run(self, crash: str, *words: str) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        all_words = ["generations", *words, "--data-dir", str(self._cluster.data_dir)]
        self._process.stdin.write(json.dumps([crash, *all_words]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@pytest.fixture
def crashing(cluster: Cluster) -> Iterator[Crashing]:
    command = [sys.executable, "-m", "tests.kit.children.crashing_commands"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Crashing(process, cluster)
        assert process.stdin is not None
        process.stdin.close()


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


REFUSED = [
    (
        ["build", "/nowhere"],
        "/nowhere is no folder; to take a generation from a registry, name that with --registry",
    ),
    (["build", "other-1", "--registry", "{registry}"], "other-1 is not published in {registry}"),
    (["build", "{first}"], "the generation {serving} is serving and complete, so there is nothing to build"),
    (["retire", "{serving}"], "the generation {serving} serves; promote another one first, or roll back"),
    (["retire", "other-1"], "there is no generation other-1; there are: {serving}"),
    (["rollback"], "no generation is kept beside {serving}, so there is none to go back to"),
    (["promote", "{serving}", "--canary", "half"], "'half' is no share; give one such as 5% or 0.05"),
    (["promote", "{serving}", "--canary", "200%"], "a canary's share is above 0 % and below 100 %"),
]


def test_what_does_not_fit_is_refused_before_anything_is_made(cluster: Cluster) -> None:
    names = {
        "serving": cluster.first.generation,
        "first": str(cluster.first.folder),
        "registry": str(cluster.registry),
    }
    for words, refusal in REFUSED:
        done = cluster.run(*(word.format(**names) for word in words))
        assert (done.status, done.out) == (1, "")
        assert refusal.format(**names) in done.err
    assert cluster.left() == set()
    assert list(read_generations(cluster.kafka).records) == [cluster.first.generation]


def test_a_package_that_wants_fields_which_contexts_do_not_have_is_refused_naming_them(
    cluster: Cluster, tmp_path: Path
) -> None:
    package = tmp_path / "package"
    shutil.copytree(cluster.first.folder, package)
    manifest = json.loads((package / MANIFEST_FILE).read_bytes())
    manifest["templates"]["post"]["fields"] = ["mood", "counts.moods", "text"]
    (package / MANIFEST_FILE).write_text(json.dumps(manifest))
    refused = cluster.run("build", str(package))
    assert refused.status == 1
    assert "the post template wants mood, counts.moods, which this version's contexts do not have" in refused.err


def test_the_rate_can_be_changed_while_it_is_built(cluster: Cluster) -> None:
    rates = []
    for more in (("--rate", "5"), (), ("--rate", "7.5")):
        assert cluster.build(*more).status == 0
        record = cluster.record()
        assert record is not None
        rates.append(record.rate)
    assert rates == [5.0, 5.0, 7.5]
    assert [act.what for act in record.history] == ["build", "build with at most 7.5 contexts a second"]


def test_where_an_instance_runs_without_room_for_it_nothing_is_made_unless_by_force(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = Free(lambda: 0, lambda: 0, lambda _: 0)
    with cluster.with_instance():
        with monkeypatch.context() as patch:
            patch.setattr(room_beside, "free_here", lambda _: nothing)
            refused = cluster.build_plainly()
            assert (refused.status, refused.out, cluster.record()) == (1, "", None)
            assert f"this machine has no room for the generation {cluster.second.generation}" in refused.err
            assert cluster.left() == set(), "not even the package, which says how much it needs"
            assert cluster.build_plainly("--force").status == 0
            assert cluster.build_plainly().status == 0, "it lives, so it has its room"
        record = cluster.record()
        assert record is not None
        assert (record.state, record.ignores_room) == ("building", True)
        assert [act.what for act in record.history] == ["build with force"]


def test_force_may_follow_when_a_process_elsewhere_has_no_room(cluster: Cluster) -> None:
    ignores = []
    for more in ((), ("--force", "--rate", "5"), ("--force",), ()):
        assert cluster.build(*more).status == 0
        record = cluster.record()
        assert record is not None
        ignores.append(record.ignores_room)
    assert ignores == [False, True, True, True]
    assert [act.what for act in record.history] == ["build", "build with at most 5 contexts a second and force"]


def test_a_package_is_fetched_only_where_an_instance_will_work_with_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a cluster the command runs in a pod that has neither the memory nor the disk for it, nor any use."""
    monkeypatch.setattr(room_beside, "free_here", lambda _: PLENTY)
    fetched = packages_module.packages_folder(cluster.data_dir) / cluster.second.generation
    assert cluster.build_plainly().out == f"{cluster.second.generation}\n"
    record = cluster.record()
    assert record is not None
    assert (record.state, record.digest) == ("building", cluster.second.digest)
    assert not fetched.exists()
    with cluster.with_instance():
        assert cluster.build_plainly().status == 0
    assert ModelPackage.load(fetched).digest == cluster.second.digest


def test_a_package_is_not_fetched_onto_a_disk_that_is_too_small_for_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages_module, "free_here", lambda _: Free(lambda: 0, lambda: 1_000, lambda _: 0))
    with cluster.with_instance():
        refused = cluster.build_plainly()
    assert (refused.status, refused.out) == (1, "")
    assert "its package needs about" in refused.err
    assert not (packages_module.packages_folder(cluster.data_dir) / cluster.second.generation).exists()


def test_wait_ends_when_it_is_ready_or_not_wanted_any_more(cluster: Cluster) -> None:
    cluster.build_plainly()
    cluster.make_ready()
    waited = cluster.build("--wait")
    assert (waited.status, waited.out) == (0, f"{cluster.second.generation}\n")
    assert waited.err.endswith(f"{cluster.second.generation} is ready\n")


def test_wait_draws_a_bar_on_a_terminal(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []

    def read(kafka: KafkaSettings) -> Generations:
        reads.append(len(looks))
        return read_generations(kafka)

    looks: list[Progress | None] = [Progress(0, 8, None), Progress(4, 8, 3_725.4), None, Progress(7, 8, 65.0)]
    generation = cluster.second.generation

    def look(_: object, record: GenerationRecord, __: object) -> Progress | None:
        if record.state != "building":
            return None
        progress = looks.pop(0)
        if not looks:
            cluster.make_ready()
        if progress is None:
            raise KafkaUnavailable("the broker is away")
        return progress

    monkeypatch.setattr(building, "read_generations", read)
    monkeypatch.setattr(building, "read_progress", look)
    monkeypatch.setattr(building, "_LOOK_EVERY_S", 0.0)
    waited = Commands(cluster.data_dir, on_terminal=True)(
        "generations", "build", generation, "--registry", cluster.registry, "--wait"
    )
    assert (waited.status, waited.out) == (0, f"{generation}\n")
    *drawn, last = waited.err.split("\r\x1b[K")[1:]
    assert drawn == [
        f"[{'':<30}] 0 %",
        f"[{'#' * 15:<30}] 50 %, 1 h 2 min left",
        f"[{'':<30}] nobody answers now",
        f"[{'#' * 26:<30}] 87 %, 1 min 5 s left",
    ]
    assert last == f"{generation} is ready\n", "in place of the bar"
    assert reads[-2:] == [4, 0], "the log is read again only when something has changed"
