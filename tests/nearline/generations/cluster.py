"""A cluster in which one generation serves and a second one can be built: what these tests begin with."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from encoders.package.model_package import ModelPackage
from nearline.generations.local_files import cold_folder, has_local_files
from nearline.generations.room import Free
from nearline.settings.instance import Instance, locked, write_instance
from schemas import topics
from schemas.generations import GenerationRecord
from schemas.topics import encode_group, index_group
from streams.generations import acts
from streams.generations.log import change_generations, read_generations
from streams.kafka.clients import admin
from streams.kafka.offsets import OffsetReader
from streams.settings import KafkaSettings
from tests.kit.commands import CommandResult, Commands
from tests.kit.data.generations import AT
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.groups import commit

BY = acts.By("test", AT, "to see")
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
