"""For tests of what reads topics: all topics of one generation on the session's broker, and who asks for offsets."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from streams.kafka.offsets import OffsetReader
from streams.settings import KafkaSettings
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.topics import make_topics


@pytest.fixture
def kafka(clean_topics: RunningBroker) -> KafkaSettings:
    return make_topics(clean_topics)


@pytest.fixture
def reader(kafka: KafkaSettings) -> Iterator[OffsetReader]:
    with closing(OffsetReader(kafka)) as reader:
        yield reader
