"""Keeps a loop in its consumer group while it reads nothing: because others go before it, or between two tries during
an outage."""

import random
import time
from collections.abc import Container
from threading import Event
from types import TracebackType
from typing import Final, Self

from confluent_kafka import Consumer, Message

FIRST_DELAY_S: Final = 0.1
MAX_DELAY_S: Final = 5.0
POLL_AFTER_S: Final = 60.0
"""An outage longer than this is polled through, because the group drops a consumer that does not poll for
max.poll.interval.ms (five minutes). Shorter outages are not: polling needs a pause, which discards the prefetched
records."""


class GroupStay:
    """Keeps a consumer in its group while its loop reads nothing. At the end of the `with` block it reads again.

    A poll may return a record although the partitions are paused. It is added to `carried_over`, and the loop must
    process it before it reads any other record. Only the consumer's thread may use this class.
    """

    def __init__(
        self, consumer: Consumer, carried_over: list[Message], poll_after_s: float, *, leave_paused: Container[str] = ()
    ) -> None:
        """`leave_paused` are topics that are never read by this consumer."""
        self._consumer = consumer
        self._leave_paused = leave_paused
        self._carried_over = carried_over
        self._poll_from = time.monotonic() + poll_after_s
        self._paused = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._paused:
            self._consumer.resume([at for at in self._consumer.assignment() if at.topic not in self._leave_paused])

    def poll_if_due(self) -> None:
        """Call it again and again. Polls after `poll_after_s`."""
        if time.monotonic() < self._poll_from:
            return
        # Pauses at every poll, because a partition that was assigned since the last poll is not paused yet.
        self._consumer.pause(self._consumer.assignment())
        self._paused = True
        message = self._consumer.poll(0)
        if message is not None and message.error() is None:
            self._carried_over.append(message)


class RetryBackoff(GroupStay):
    """The delays of one outage: exponential, with jitter so that workers do not retry in step."""

    def __init__(
        self,
        consumer: Consumer,
        stop: Event,
        carried_over: list[Message],
        poll_after_s: float = POLL_AFTER_S,
        *,
        leave_paused: Container[str] = (),
    ) -> None:
        super().__init__(consumer, carried_over, poll_after_s, leave_paused=leave_paused)
        self._stop = stop
        self._delay_s = FIRST_DELAY_S

    def wait(self) -> bool:
        """Waits before the next try. False if the loop is to stop instead."""
        delay_s = self._delay_s * random.uniform(0.5, 1.0)
        self._delay_s = min(MAX_DELAY_S, 2 * self._delay_s)
        if self._stop.wait(delay_s):
            return False
        self.poll_if_due()
        return True
