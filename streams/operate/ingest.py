"""Sends input events into their topics, with an idempotent producer that waits out an outage.

Owns the pace, and the count of events that the broker refused. Knows neither files nor the terminal.
"""

import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, Self

from confluent_kafka import KafkaError, Message

from schemas import topics, traces
from schemas.dead_letters import Headers
from schemas.headers import TRACEPARENT_HEADER
from streams.errors import KafkaRefused, KafkaUnavailable, NotDelivered
from streams.kafka.clients import Config, admin, new_producer
from streams.kafka.kafka_errors import kafka_errors
from streams.kafka.records import Output
from streams.kafka.sending import produce
from streams.operate.event_files import InputEvent
from streams.settings import KafkaSettings

_POLL_EVERY: Final = 500
"""Events between two polls of the client. A poll after every event would cost a tenth of the speed."""

_PACE_S: Final = 0.1
_ANSWER_S: Final = 5.0
_QUEUE_KBYTES: Final = 128 * 1024


class EventSender:
    """Sends input events in order. Used by one thread. `close` returns when the broker has all of them.

    While the broker is away nothing is lost and nothing fails: the client's queue fills, and `send` waits. `on_outage`
    is called when the first outage begins, by the thread that sends.
    """

    def __init__(
        self, kafka: KafkaSettings, on_outage: Callable[[], None] = lambda: None, options: Config | None = None
    ) -> None:
        self._on_outage = on_outage
        self._had_outage = False
        self._num_failed = 0
        self._first_failure = ""
        self.num_sent = 0
        overrides = {
            # So a paced feed sends a few requests a second, not one for each event.
            "linger.ms": int(_PACE_S * 1000),
            "message.timeout.ms": 0,  # an outage is waited out, however long
            "queue.buffering.max.kbytes": _QUEUE_KBYTES,
            "delivery.report.only.error": True,
            "on_delivery": self._on_delivery,
            "error_cb": self._on_error,
        }
        self._producer = new_producer(kafka, **{**overrides, **(options or {})})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._producer.purge()

    def send(self, events: Iterable[InputEvent], rate: float | None = None, sent: Callable[[], object] = int) -> None:
        """Sends at most `rate` events a second, evenly to within a tenth of a second: events that are closer together
        go into one request anyway. `sent` is called after each event. Raises StreamsError."""
        start = time.monotonic()
        for number, event in enumerate(events):
            if number % _POLL_EVERY == 0:
                self._producer.poll(0)
            if rate is not None and start + number / rate > time.monotonic() + _PACE_S:
                self._poll_until(start + number / rate)
            produce(self._producer, Output(*event, _trace()))
            self.num_sent += 1
            sent()

    def close(self) -> None:
        """Waits until every event has been delivered or refused. Raises NotDelivered."""
        while self._producer.flush(0.5):
            pass
        if self._num_failed:
            raise NotDelivered(f"{self._num_failed} of {self.num_sent} events were refused: {self._first_failure}")

    def _poll_until(self, due: float) -> None:
        while (wait_s := due - time.monotonic()) > 0:
            self._producer.poll(wait_s)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._num_failed += 1
            self._first_failure = self._first_failure or error.str()

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN and not self._had_outage:
            self._had_outage = True
            self._on_outage()


def _trace() -> Headers | None:
    """The event's trace begins here, if events are traced."""
    traceparent = traces.sent("ingest")
    return None if traceparent is None else [(TRACEPARENT_HEADER, traceparent)]


def wait_for_topics(kafka: KafkaSettings, on_outage: Callable[[], None]) -> None:
    """Returns once the broker has the input topics, however long it is away. Calls `on_outage` once if it is. Raises
    KafkaRefused if a topic does not exist."""
    had_outage = False
    while True:
        try:
            return check_topics(kafka, _ANSWER_S)
        except KafkaUnavailable:
            if not had_outage:
                on_outage()
            had_outage = True


def check_topics(kafka: KafkaSettings, timeout_s: float) -> None:
    """Checks that the input topics exist. Raises KafkaRefused, KafkaUnavailable."""
    with kafka_errors():
        existing = admin(kafka).list_topics(timeout=timeout_s).topics
    missing = [name for name in topics.INPUTS if name not in existing]
    if missing:
        raise KafkaRefused(f"the topic {missing[0]} does not exist on this broker; start the pipeline: nearline up")
