"""A context stage that serves one generation, and commands that ask its broker."""

from pathlib import Path

import pytest

from schemas.generations import PackageSource
from schemas.ids import Generation
from streams.generations import acts
from streams.generations.log import change_generations
from tests.kit.data.generations import AT
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.stages import ContextStageSetup


@pytest.fixture
def contexts(clean_topics: RunningBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ContextStageSetup:
    monkeypatch.setenv("NEARLINE_KAFKA__BOOTSTRAP_SERVERS", str(clean_topics.bootstrap_servers))
    setup = ContextStageSetup(clean_topics, tmp_path)
    first = acts.Package(Generation("a-1"), PackageSource(folder="/models/a"), "digest of a-1")
    change_generations(setup.kafka, lambda state: acts.found(state, first, acts.By("test", AT)))
    return setup
