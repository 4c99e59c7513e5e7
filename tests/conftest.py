"""The real broker for tests. Nothing of it outlives the session.

Which fixture to take:
- `broker`: one broker for the whole session. Start it never, break it never. For tests with topic and group names of
  their own, or together with `clean_topics` for tests that use the fixed names.
- `clean_topics`: an empty `broker` for this one test, in a fraction of a second.
- `fresh_broker`: the same, for tests that stop, kill or restart it; it runs again when the test is over.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from nearline.broker.embedded import EmbeddedBroker
from nearline.ports import RANGE_VARIABLE
from tests.kit.kafka.brokers import RunningBroker, cleaned
from tests.order import ModulesTogether, ordered

settings.register_profile("nearline", deadline=None)  # a busy machine is no failure
settings.load_profile("nearline")

# A range for each worker, so that none takes a port which another one has found free.
_PORTS_OF_WORKER: Final = 3_000
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    first = 20_000 + int(worker.removeprefix("gw")) % 4 * _PORTS_OF_WORKER
    os.environ[RANGE_VARIABLE] = f"{first}-{first + _PORTS_OF_WORKER - 1}"

# A test's broker never lives long enough for the second compiler to pay.
_QUICK: Final = ("-XX:TieredStopAtLevel=1",)
_ODD_NAME: Final = "p2 ü, räume: %d ${x}#\\u"
"""Of every broker's data folder: a user may call it anything."""


@pytest.hookimpl(trylast=True)  # after pytest-randomly
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = ordered(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ModulesTogether:
    return ModulesTogether(config, log)


@pytest.fixture(scope="session")
def broker() -> Iterator[RunningBroker]:
    """A real broker, shared by the session."""
    # Not pytest's own temporary folder, which it keeps for three runs: a broker's log is large.
    with tempfile.TemporaryDirectory(prefix="nearline-broker-") as folder:
        running = RunningBroker(EmbeddedBroker(Path(folder) / _ODD_NAME / "kafka", jvm=_QUICK))
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
