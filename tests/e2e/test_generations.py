"""A second generation is built beside the serving one while events come in, and retired again."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path

import msgspec
import psutil
import pytest

from nearline.ask.connections import Connections
from nearline.chaos.expected_vectors import ReEncodedVectors
from nearline.chaos.generation_check import Differences, differences
from nearline.gate import names
from nearline.pipeline import Pipeline
from nearline.settings.loading import instance_settings
from schemas.ids import Generation
from schemas.topics import encode_group, index_group
from streams.kafka.clients import admin
from streams.kafka.offsets import OffsetReader
from tests.e2e.conftest import Running
from tests.kit.data.events import Event, member_updated, post_created, post_deleted, post_updated
from tests.kit.packages import make_tiny_package
from tests.kit.waiting import until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

NUM_POSTS = 60


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_package(tmp_path_factory.mktemp("models") / "second", hidden=16, layers=1).folder


@pytest.fixture
def connections(pipeline: Pipeline) -> Connections:
    return Connections(instance_settings(None, pipeline.data_dir), lambda: pipeline.instance)


def test_building_beside_live_traffic_and_retiring(
    running: Running, connections: Connections, package: Path, unique: Callable[[str], str]
) -> None:
    pipeline = running.pipeline
    serving = Generation(pipeline.instance.generation)
    names_before, restarts_before = _process_names(pipeline), _restarts(pipeline)
    built = Generation(pipeline.ask("generations", "build", package, "--rate", "300")["id"])
    until(lambda: "cold-green" in _process_names(pipeline), "processes at the place that was free", 60)
    for numbers in (range(30), range(30, NUM_POSTS)):
        pipeline.ingest(event for number in numbers for event in _events(unique("g"), number))
        _kill(pipeline, "encode-green-0", "cold-green")
    assert pipeline.ask("generations", "build", package)["id"] == built, "the same command goes on"
    pipeline.run("generations", "build", package, "--wait")
    assert _states(pipeline) == {serving: "serving", built: "ready"}
    pipeline.wait()
    for generation, folder in ((serving, Path(pipeline.instance.package)), (built, package)):
        assert differences(connections, generation, ReEncodedVectors(folder)) == Differences(set(), set(), set())
    stages = pipeline.ask("status")["stages"]
    groups = {stage["group"]: stage["lag"] for stage in stages if stage["stage"] in ("encode", "index")}
    assert groups == {group(each): 0 for group in (encode_group, index_group) for each in (serving, built)}
    _check_gate(pipeline, built)
    pipeline.run("generations", "retire", built)
    _nothing_is_left(connections, pipeline, built)
    until(lambda: _process_names(pipeline) == names_before, "the processes of the empty place to be gone", 60)
    assert _restarts(pipeline) == restarts_before


def _check_gate(pipeline: Pipeline, built: Generation) -> None:
    """It is complete and keeps up. Both models have random weights, so which of them finds more is chance, and the
    processor's rounding may turn it."""
    file = pipeline.data_dir.parent / "gate.json"
    done = pipeline.attempt("generations", "gate", built, "--json", file)
    figures = {figure["name"]: figure for figure in msgspec.json.decode(file.read_bytes())["figures"]}
    for name in (names.IN_LOG, names.IN_COLD, names.GOLDENS, names.TIER_RECALL, names.ANSWER_RECALL, names.AGE):
        assert figures[name]["holds"], figures[name]
    assert 0 <= figures[names.RECALL[0]]["figure"] <= 1
    all_hold = all(figure["holds"] for figure in figures.values())
    assert done.returncode == (0 if all_hold else 1), done.stderr
    if not all_hold:
        refused = pipeline.attempt("generations", "promote", built)
        assert f"the gate of the generation {built} does not hold" in refused.stderr


def _events(post_id: str, number: int) -> Iterator[Event]:
    created = post_created(post_id, f"number {number}, a walk in the harbor")
    yield created
    yield member_updated(f"member-{post_id}", headline=f"number {number}")
    if number % 3 == 1:
        yield post_updated(created, f"number {number} was wrong")
    if number % 3 == 2:
        yield post_deleted(post_id)


def _process_names(pipeline: Pipeline) -> set[str]:
    return {process.name for process in pipeline.instance.processes}


def _restarts(pipeline: Pipeline) -> dict[str, int]:
    return {process.name: process.restarts for process in pipeline.instance.processes}


def _kill(pipeline: Pipeline, *names: str) -> None:
    for process in pipeline.instance.processes:
        if process.name in names and process.pid is not None:
            with suppress(psutil.NoSuchProcess):
                psutil.Process(process.pid).kill()


def _states(pipeline: Pipeline) -> dict[str, str]:
    """Of the live generations."""
    listed = pipeline.ask("generations", "list")["generations"]
    return {record["id"]: record["state"] for record in listed if record["state"] != "retired"}


def _nothing_is_left(connections: Connections, pipeline: Pipeline, generation: Generation) -> None:
    with closing(OffsetReader(connections.kafka, 30)) as reader:
        assert generation not in reader.generations()
    client = admin(connections.kafka)  # it must live until the answer is there
    groups = client.list_consumer_groups(request_timeout=30).result().valid
    assert {group.group_id for group in groups}.isdisjoint({encode_group(generation), index_group(generation)})
    until(lambda: not _files(pipeline, generation), "the retriever to close it, with its last snapshot", 60)


def _files(pipeline: Pipeline, generation: Generation) -> list[Path]:
    """The broker removes its own files in its own time."""
    paths = [Path(folder) / name for folder, *names in os.walk(pipeline.data_dir) for name in chain(*names)]
    return [path for path in paths if generation in path.name and "kafka" not in path.parts]
