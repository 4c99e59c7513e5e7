"""Waiting out an outage inside a loop that must stay in its consumer group."""

import random
import time
from threading import Event
from types import TracebackType
from typing import Final, Self

from confluent_kafka import Consumer, Message

FIRST_WAIT_S: Final = 0.1
LONGEST_WAIT_S: Final = 5.0
QUIET_S: Final = 60.0
"""After this long the loop polls while it waits, or the group would take it for dead at max.poll.interval.ms (five
minutes). Not sooner: pausing throws the prefetched records away."""


class Patience:
    """One outage: waits longer each time, up to five seconds, with some chance so that workers do not come in step.

    A record that arrives while it polls goes to `held`: it must be the next one the loop takes. Only the consumer's
    thread may use it.
    """

    def __init__(self, consumer: Consumer, stop: Event, held: list[Message], quiet_s: float = QUIET_S) -> None:
        self._consumer = consumer
        self._stop = stop
        self._held = held
        self._quiet_until = time.monotonic() + quiet_s
        self._next_s = FIRST_WAIT_S
        self._paused = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._paused:
            self._consumer.resume(self._consumer.assignment())

    def wait(self) -> bool:
        """False where a stop came first."""
        wait_s = self._next_s * random.uniform(0.5, 1.0)
        self._next_s = min(LONGEST_WAIT_S, 2 * self._next_s)
        if self._stop.wait(wait_s):
            return False
        if time.monotonic() >= self._quiet_until:
            self._stay_in_group()
        return True

    def _stay_in_group(self) -> None:
        # Every time, because partitions that were assigned meanwhile are not paused.
        self._consumer.pause(self._consumer.assignment())
        self._paused = True
        message = self._consumer.poll(0)
        if message is not None and message.error() is None:
            self._held.append(message)
