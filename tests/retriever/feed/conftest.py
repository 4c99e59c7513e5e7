"""The hot feed on the broker of the session."""

from collections.abc import Iterator

import pytest

from tests.kit.hot_feeding import Feeding
from tests.kit.kafka.brokers import RunningBroker

PARTITIONS = 2


@pytest.fixture
def feeding(clean_topics: RunningBroker) -> Iterator[Feeding]:
    yield from _feeding(clean_topics)


@pytest.fixture
def stoppable(fresh_broker: RunningBroker) -> Iterator[Feeding]:
    """On a broker that the test may stop."""
    yield from _feeding(fresh_broker)


def _feeding(running: RunningBroker) -> Iterator[Feeding]:
    feeding = Feeding(running)
    feeding.create_topics()
    yield feeding
    feeding.close()
