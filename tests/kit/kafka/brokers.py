"""The real broker as a test holds it: it can be started, stopped, killed and emptied. The fixtures are in
`tests/conftest.py`."""

from functools import cached_property
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from nearline.broker.embedded import EmbeddedBroker
from tests.kit.waiting import until

NO_COORDINATOR_YET: Final = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError._WAIT_COORD,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
)
"""Errors with which a broker that has just started answers questions about a group."""


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
        """The data folder that an instance with this broker would have."""
        return self.embedded.folder.parent

    def start(self) -> None:
        """From the main thread: the broker ends with the thread that starts it, so also with a killed pytest."""
        self.embedded.start(dies_with_parent=True)
        self._forget_admin()

    def stop(self) -> None:
        self._forget_admin()
        self.embedded.stop()

    def kill(self) -> None:
        """Sends SIGKILL and returns when the process is gone."""
        process = self.embedded.running()
        assert process is not None, "the broker does not run, so it cannot be killed"
        self._forget_admin()
        process.kill()
        process.wait(10)

    @cached_property
    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

    def delete_topics(self, *names: str) -> None:
        """Returns when nobody is told of them any more."""
        for deleted in self.admin.delete_topics(list(names)).values():
            deleted.result(20)
        until(lambda: not set(names) & self.admin.list_topics(timeout=20).topics.keys(), "the topics to be gone")

    def _forget_admin(self) -> None:
        """A client that has asked for a group before a kill may wait for that coordinator for good (librdkafka 5511).
        While the broker lives: to end a client whose broker is dead may take for ever (librdkafka 4519)."""
        self.__dict__.pop("admin", None)


def cleaned(broker: RunningBroker) -> RunningBroker:
    """The same broker without any topic or consumer group, and without what an instance left in its data folder."""
    _delete_groups(broker.admin)
    _delete_topics(broker)
    for path in set(broker.data_dir.iterdir()) - {broker.folder}:
        path.unlink()
    return broker


def _delete_topics(broker: RunningBroker) -> None:
    if names := [name for name in broker.admin.list_topics(timeout=20).topics if not name.startswith("__")]:
        broker.delete_topics(*names)


def _delete_groups(admin: AdminClient) -> None:
    until(lambda: all(_delete_group(admin, name) for name in _groups(admin)), "the groups of the last test to end")


def _groups(admin: AdminClient) -> list[str]:
    return [group.group_id for group in admin.list_consumer_groups().result(20).valid]


def _delete_group(admin: AdminClient, name: str) -> bool:
    """False while the group has live members or has no coordinator yet."""
    try:
        admin.delete_consumer_groups([name])[name].result(20)
    except KafkaException as error:
        if error.args[0].code() in (KafkaError.NON_EMPTY_GROUP, *NO_COORDINATOR_YET):
            return False
        if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
            raise
    return True
