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
from functools import cached_property
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from hypothesis import settings

from nearline.broker.embedded import EmbeddedBroker
from nearline.ports import RANGE_VARIABLE
from tests.order import ModulesTogether, ordered
from tests.waiting import until

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

NO_COORDINATOR_YET: Final = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError._WAIT_COORD,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
)
"""What a broker that has just started answers about a group, for a moment."""


@pytest.hookimpl(trylast=True)  # after pytest-randomly
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = ordered(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ModulesTogether:
    return ModulesTogether(config, log)


class RunningBroker:
    """`start` after `stop` or `kill` uses the same port, so that clients come back."""

    def __init__(self, embedded: EmbeddedBroker) -> None:
        self.embedded = embedded

    @property
    def bootstrap_servers(self) -> str:
        return self.embedded.bootstrap_servers

    @property
    def folder(self) -> Path:
        return self.embedded.folder

    @property
    def data_dir(self) -> Path:
        """The data folder of an instance whose broker this would be."""
        return self.embedded.folder.parent

    def start(self) -> None:
        """From the main thread: the broker ends with the thread that starts it, so also with a killed pytest."""
        self.embedded.start(dies_with_parent=True)
        # A client that has asked for a group before a kill may wait for that coordinator for good (librdkafka 5511).
        self.__dict__.pop("admin", None)

    def stop(self) -> None:
        self.embedded.stop()

    def kill(self) -> None:
        """kill -9; returns when it is gone."""
        process = self.embedded.running()
        assert process is not None, "the broker does not run, so it cannot be killed"
        process.kill()
        process.wait(10)

    @cached_property
    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})


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
    yield _cleaned(broker)
    if not broker.embedded.serves():
        broker.start()


@pytest.fixture
def clean_topics(broker: RunningBroker) -> RunningBroker:
    """The session's broker without any topic or consumer group, for a test that uses the fixed names.

    End your own consumers before the test ends: a group with live members is waited for.
    """
    return _cleaned(broker)


def _cleaned(broker: RunningBroker) -> RunningBroker:
    _delete_groups(broker.admin)
    _delete_topics(broker.admin)
    return broker


def _delete_topics(admin: AdminClient) -> None:
    if names := _topics(admin):
        for deleted in admin.delete_topics(names).values():
            deleted.result(20)
        until(lambda: not _topics(admin), "the topics of the last test to be gone")


def _topics(admin: AdminClient) -> list[str]:
    return [name for name in admin.list_topics(timeout=20).topics if not name.startswith("__")]


def _delete_groups(admin: AdminClient) -> None:
    until(lambda: all(_delete_group(admin, name) for name in _groups(admin)), "the groups of the last test to end")


def _groups(admin: AdminClient) -> list[str]:
    return [group.group_id for group in admin.list_consumer_groups().result(20).valid]


def _delete_group(admin: AdminClient, name: str) -> bool:
    """False while it has live members, or its coordinator is not there yet."""
    try:
        admin.delete_consumer_groups([name])[name].result(20)
    except KafkaException as error:
        if error.args[0].code() in (KafkaError.NON_EMPTY_GROUP, *NO_COORDINATOR_YET):
            return False
        if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
            raise
    return True
