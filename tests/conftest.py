"""The real broker for tests, and the order of tests. `tests/kit/README.md` says what else tests share.

Which fixture to take:
- `clean_topics`: the session's broker without any topic or group. Never stop it.
- `fresh_broker`: the same, for tests that stop, kill or restart it. It runs again when the test is over.
- `kafka`: the settings of `clean_topics`, with all topics of a generation.
- `broker`: the session's broker as the last test left it, for tests with topic and group names of their own.
"""

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import closing
from typing import Final

import pytest
import structlog
from hypothesis import settings

from nearline.broker.embedded import EmbeddedBroker
from nearline.ports import RANGE_VARIABLE
from streams.settings import KafkaSettings
from tests.kit.folders import temporary_data
from tests.kit.forks import Forks
from tests.kit.kafka.brokers import RunningBroker, cleaned
from tests.kit.kafka.topics import make_topics
from tests.order import ModulesTogether, ordered

# A busy machine is no failure, and each run of the suite takes the same examples. `make fuzz` looks for new ones.
settings.register_profile("nearline", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("nearline")

# As in a real process. Debug lines of a service in a thread of the test would stand in what a command prints.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))

# Importing the tests and what they need makes a million objects that stay to the end. Without these lines the garbage
# collector looked through them again and again, a tenth of the suite's time.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture(autouse=True)
def log_settings_stay() -> Iterator[None]:
    """A command that a test runs in process sets up the log of its own: loggers that are used first after it would keep
    that for good."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


# Each worker has a range of ports, so that no two workers pick the same free port.
_PORTS_OF_WORKER: Final = 2_400
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    first = 20_000 + int(worker.removeprefix("gw")) % 5 * _PORTS_OF_WORKER
    os.environ[RANGE_VARIABLE] = f"{first}-{first + _PORTS_OF_WORKER - 1}"

# Java's second compiler costs more than it gains in the short life of a test's broker.
QUICK_JVM: Final = ("-XX:TieredStopAtLevel=1",)
_ODD_NAME: Final = "p2 ü, räume: %d ${x}#\\u"
"""The name of every broker's data folder, because a user may choose any name."""


@pytest.hookimpl(trylast=True)  # after pytest-randomly
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = ordered(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ModulesTogether:
    return ModulesTogether(config, log)


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Begins when it runs its first module."""
    with closing(Forks()) as forks:
        yield forks


@pytest.fixture(scope="session")
def broker() -> Iterator[RunningBroker]:
    """A real broker, shared by the session."""
    with temporary_data("nearline-broker-") as folder:
        running = RunningBroker(EmbeddedBroker(folder / _ODD_NAME / "kafka", jvm=QUICK_JVM))
        try:
            running.start()
            yield running
        finally:
            running.stop()


@pytest.fixture
def fresh_broker(broker: RunningBroker) -> Iterator[RunningBroker]:
    """The session's broker without any topic or group, which this test may stop, kill and start."""
    yield cleaned(broker)
    if not broker.embedded.serves():
        broker.start()


@pytest.fixture
def clean_topics(broker: RunningBroker) -> RunningBroker:
    """The session's broker without any topic or consumer group, for a test that uses the fixed names.

    End your own consumers before the test ends: a group with live members is waited for.
    """
    return cleaned(broker)


@pytest.fixture
def kafka(clean_topics: RunningBroker) -> KafkaSettings:
    """The broker of `clean_topics` with all topics of GENERATION."""
    return make_topics(clean_topics)
