"""Input events into their topics: an idempotent producer that waits out an outage.

Owns pace, back pressure and what became of each record. Knows neither files nor the terminal.
"""

import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, Self

from confluent_kafka import KafkaError, KafkaException, Message

from schemas import topics
from streams.errors import KafkaRefused, KafkaUnavailable, NotDelivered
from streams.kafka.clients import Config, admin, kafka_errors, new_producer, translate
from streams.operate.event_files import InputEvent
from streams.settings import KafkaSettings

_POLL_EVERY: Final = 500
"""Records between two looks at what the client has to say; a look a record costs a tenth of the speed."""

_PACE_S: Final = 0.1
_ANSWER_S: Final = 5.0
_QUEUE_KBYTES: Final = 128 * 1024


class EventSender:
    """Sends input events in order. Used by one thread; `close` returns when all of them are at the broker.

    While the broker is away nothing is lost and nothing fails: the queue fills, and sending waits. `on_outage` is
    called when that begins, from the thread that sends.
    """

    def __init__(
        self, kafka: KafkaSettings, on_outage: Callable[[], None] = lambda: None, options: Config | None = None
    ) -> None:
        self._on_outage = on_outage
        self._out = False
        self._num_failed = 0
        self._first_failure = ""
        self.num_sent = 0
        own = {
            # A paced feed sends a few requests a second and not one an event.
            "linger.ms": int(_PACE_S * 1000),
            "message.timeout.ms": 0,  # an outage is waited out, however long
            "queue.buffering.max.kbytes": _QUEUE_KBYTES,
            "delivery.report.only.error": True,
            "on_delivery": self._delivered,
            "error_cb": self._error,
        }
        self._producer = new_producer(kafka, **{**own, **(options or {})})

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
        """At most `rate` events a second, evenly to within a tenth of a second: what is sent within one goes in one
        request anyway. `sent` is called after each. Raises NotDelivered, StreamsError."""
        start = time.monotonic()
        for number, event in enumerate(events):
            if number % _POLL_EVERY == 0:
                self._producer.poll(0)
            if rate is not None and start + number / rate > time.monotonic() + _PACE_S:
                self._poll_until(start + number / rate)
            self._produce(event)
            self.num_sent += 1
            sent()

    def close(self) -> None:
        """Waits until everything sent has been delivered or refused. Raises NotDelivered."""
        while self._producer.flush(0.5):
            pass
        if self._num_failed:
            raise NotDelivered(f"{self._num_failed} of {self.num_sent} events were refused: {self._first_failure}")

    def _produce(self, event: InputEvent) -> None:
        while True:
            try:
                self._producer.produce(event.topic, event.value, event.key)
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                raise translate(error) from error
            else:
                return

    def _poll_until(self, due: float) -> None:
        while (wait_s := due - time.monotonic()) > 0:
            self._producer.poll(wait_s)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._num_failed += 1
            self._first_failure = self._first_failure or error.str()

    def _error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN and not self._out:
            self._out = True
            self._on_outage()


def wait_for_topics(kafka: KafkaSettings, on_outage: Callable[[], None]) -> None:
    """Returns when the input topics can be sent to, however long the broker is away. Raises KafkaRefused where one
    does not exist. `on_outage` is called once."""
    told = False
    while True:
        try:
            return check_topics(kafka, _ANSWER_S)
        except KafkaUnavailable:
            if not told:
                on_outage()
            told = True


def check_topics(kafka: KafkaSettings, timeout_s: float) -> None:
    """The input topics must be there before the first event is sent. Raises KafkaRefused, KafkaUnavailable."""
    with kafka_errors():
        found = admin(kafka).list_topics(timeout=timeout_s).topics
    missing = [name for name in topics.INPUTS if name not in found]
    if missing:
        raise KafkaRefused(f"the topic {missing[0]} does not exist on this broker; start the pipeline: nearline up")
