"""Outages of what the stages depend on: the broker, the cold tier, a consumer group."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException

from nearline.chaos.faults import Adversary
from nearline.chaos.flaky_cold_tier import write_cold_faults
from nearline.errors import NearlineError
from nearline.pipeline import Pipeline
from nearline.up.names import CONTEXTS
from nearline.up.runtime import BROKER
from schemas.topics import CONTEXTS_GROUP
from streams.kafka.clients import admin
from streams.settings import KafkaSettings

_LOOK_EVERY_S: Final = 0.2
_CALL_S: Final = 20.0
_DEADLINE_S: Final = 60.0
_REFUSAL: Final = "bring them back with: nearline contexts rebuild"


class Outages:
    """Each outage lasts about `seconds`, or longer where it has to, and is over when its function returns."""

    def __init__(self, pipeline: Pipeline, adversary: Adversary, cold_faults: Path, seconds: float) -> None:
        self._pipeline = pipeline
        self._adversary = adversary
        self._cold_faults = cold_faults
        self._seconds = seconds
        self.all: dict[str, Callable[[], None]] = {
            "the broker is gone": self._broker_gone,
            "every third call to the cold tier fails": lambda: self._cold_fails(3),
            "the cold tier is away": lambda: self._cold_fails(1),
            "the offsets of the context group are lost": self._group_lost,
        }

    def _broker_gone(self) -> None:
        """The broker is killed each time it starts again."""
        deadline = time.monotonic() + self._seconds
        while time.monotonic() < deadline:
            self._adversary.signal(signal.SIGKILL, self._adversary.running(BROKER))
            time.sleep(_LOOK_EVERY_S)

    def _cold_fails(self, every: int) -> None:
        write_cold_faults(self._cold_faults, every)
        time.sleep(self._seconds)
        write_cold_faults(self._cold_faults, 0)

    def _group_lost(self) -> None:
        """The stage must refuse to go on, and log the command that mends it. Then that command is called."""
        log_size = self._pipeline.log_file.stat().st_size
        workers = self._adversary.running(CONTEXTS)
        # A group with live members cannot be deleted. Frozen members leave it when their session is over.
        self._adversary.signal(signal.SIGSTOP, workers)
        _until(self._delete_group, "the group to lose its frozen members")
        self._adversary.signal(signal.SIGKILL, workers)
        _until(lambda: self._refused_since(log_size), "the context stage to refuse to count twice")
        self._pipeline.run("contexts", "rebuild")

    def _delete_group(self) -> bool:
        client = admin(KafkaSettings(bootstrap_servers=self._pipeline.instance.bootstrap_servers))
        try:
            client.delete_consumer_groups([CONTEXTS_GROUP])[CONTEXTS_GROUP].result(_CALL_S)
        except KafkaException:
            return False
        return True

    def _refused_since(self, log_size: int) -> bool:
        return _REFUSAL in self._pipeline.log_file.read_bytes()[log_size:].decode(errors="replace")


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise NearlineError(f"waited {_DEADLINE_S:.0f} s for {what}")
        time.sleep(_LOOK_EVERY_S)
