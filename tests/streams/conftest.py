"""All topics of one generation on the session's broker, a reader of offsets, and each stage with its topics."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from streams.kafka.offsets import OffsetReader
from streams.settings import KafkaSettings
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.stages import ContextStageSetup, EncodeStageSetup, IndexLoopSetup


@pytest.fixture
def reader(kafka: KafkaSettings) -> Iterator[OffsetReader]:
    with closing(OffsetReader(kafka)) as reader:
        yield reader


@pytest.fixture
def contexts(clean_topics: RunningBroker, tmp_path: Path) -> ContextStageSetup:
    return ContextStageSetup(clean_topics, tmp_path)


@pytest.fixture
def encode(clean_topics: RunningBroker) -> EncodeStageSetup:
    return EncodeStageSetup(clean_topics)


@pytest.fixture
def index(clean_topics: RunningBroker, tmp_path: Path) -> IndexLoopSetup:
    return IndexLoopSetup(clean_topics, tmp_path)
