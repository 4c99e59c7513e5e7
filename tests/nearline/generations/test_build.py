"""What the build of a generation refuses, its rate, its room and its end, on a real broker. No stage runs: nothing is
filled."""

import json
import shutil
from pathlib import Path

import pytest

from encoders.package.manifest import MANIFEST_FILE
from encoders.package.model_package import ModelPackage
from nearline.generations import building
from nearline.generations import packages as packages_module
from nearline.generations.room import Free
from nearline.up import room_beside
from schemas.generations import GenerationRecord
from streams.errors import KafkaUnavailable
from streams.generations.log import read_generations
from streams.generations.progress import Progress
from streams.generations.state import Generations
from streams.settings import KafkaSettings
from tests.kit.commands import Commands
from tests.nearline.generations.cluster import PLENTY, Cluster

pytestmark = pytest.mark.broker

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
