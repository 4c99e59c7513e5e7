import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas import topics
from schemas.generations import PackageSource
from streams.generations import acts
from streams.generations.log import change_generations
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.topics import produce
from tests.kit.packages import make_tiny_package
from tests.nearline.generations.cluster import BY, Cluster, Crashing, Packages
from trainer.publishing.registry import Registry


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


@pytest.fixture
def crashing(cluster: Cluster) -> Iterator[Crashing]:
    command = [sys.executable, "-m", "tests.kit.children.crashing_commands"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Crashing(process, cluster)
        assert process.stdin is not None
        process.stdin.close()
