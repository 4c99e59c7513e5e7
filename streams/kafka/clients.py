"""Kafka clients: their configuration from the settings, and the one place where Kafka's errors become ours.

Every client of this project is made from these dictionaries. Knows no topic and no record.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from streams.errors import Fenced, KafkaRefused, KafkaUnavailable, StreamsError
from streams.settings import KafkaSettings

Config = dict[str, Any]

log = structlog.get_logger(__name__)

MAX_RECORD_BYTES: Final = 8 * 1024 * 1024
"""An input record is at most 1 MB. The largest of ours is the context of a member with 4,000 ids of 256 bytes that JSON
must escape."""

_REFUSED: Final = frozenset(
    (
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._INVALID_ARG,
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_CONFIG,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    )
)
_NOT_LET_IN: Final = (KafkaError._AUTHENTICATION, KafkaError._SSL)
_FENCED: Final = frozenset(
    (
        KafkaError._FENCED,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.PRODUCER_FENCED,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
    )
)


def client_config(kafka: KafkaSettings, **over: Any) -> Config:
    """What every client shares. `over` wins; its keys are Kafka's, with dots."""
    return _config(kafka, {}, over)


def consumer_config(kafka: KafkaSettings, group: str, **over: Any) -> Config:
    """A reader of committed records, from the earliest, that commits nothing by itself."""
    defaults = {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        # The shortest that brokers allow by default: a dead worker's partitions move after it.
        "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 1_000,
        # What comes is answered at once; this is how often an idle consumer asks again, and what a seek may wait.
        "fetch.wait.max.ms": 500,
        "queued.max.messages.kbytes": 65_536,
    }
    return _config(kafka, defaults, over)


def producer_config(kafka: KafkaSettings, **over: Any) -> Config:
    """An idempotent producer that puts keys where every other client of Kafka puts them."""
    defaults = {
        "enable.idempotence": True,
        "message.max.bytes": MAX_RECORD_BYTES,
        "compression.type": "lz4",
        "linger.ms": 5,
    }
    # Not an option: rows are where this puts their keys.
    return _config(kafka, defaults, {"partitioner": "murmur2_random", **over})


def _config(kafka: KafkaSettings, defaults: Config, over: Config) -> Config:
    """The settings' options win over our defaults, and not over what a caller needs."""
    if kafka.bootstrap_servers is None:
        raise KafkaRefused("no broker is named; set kafka.bootstrap_servers, or start one with: nearline up")
    options = {name: value.get_secret_value() for name, value in kafka.options.items()}
    # librdkafka writes to stderr what our errors already say.
    own = {"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0, "error_cb": log_refused_login}
    return {**own, **defaults, **options, **over}


def log_refused_login(error: KafkaError) -> None:
    """A wrong password and a certificate that is not believed look like an outage to whoever waits for an answer."""
    if error.code() in _NOT_LET_IN:
        log.warning("the broker and this client do not trust each other; see kafka.options", error=error.str())


class RefusedLogins:
    """Remembers why the broker does not let a client in: an `error_cb`, called when the client is polled."""

    def __init__(self) -> None:
        self.newest: str | None = None

    def __call__(self, error: KafkaError) -> None:
        log_refused_login(error)
        if error.code() in _NOT_LET_IN:
            self.newest = error.str()


def admin(kafka: KafkaSettings, error_cb: Callable[[KafkaError], None] = log_refused_login) -> AdminClient:
    """Raises KafkaRefused for a wrong option, and so do `new_consumer` and `new_producer`."""
    with _options_named():
        return AdminClient(client_config(kafka, error_cb=error_cb))


def new_consumer(kafka: KafkaSettings, group: str, **over: Any) -> Consumer:
    """Made by `consumer_config`. Close it."""
    with _options_named():
        return Consumer(consumer_config(kafka, group, **over))


def new_producer(kafka: KafkaSettings, **over: Any) -> Producer:
    """Made by `producer_config`."""
    with _options_named():
        return Producer(producer_config(kafka, **over))


@contextmanager
def _options_named() -> Iterator[None]:
    """A client that is made asks nobody, so what it refuses is in its options."""
    try:
        yield
    except KafkaException as error:
        raise KafkaRefused(f"kafka.options: {error.args[0].str().strip()}") from None
    except (TypeError, ValueError) as error:
        raise KafkaRefused(f"kafka.options: {error}") from None


def translate(error: KafkaError | KafkaException) -> StreamsError:
    """By Kafka's codes, never by the text of a message. What is not known is taken for an outage."""
    cause = error.args[0] if isinstance(error, KafkaException) else error
    if not isinstance(cause, KafkaError):
        return KafkaUnavailable(f"Kafka: {cause}")
    sentence = f"Kafka: {cause.str()} ({cause.name()})"
    if cause.code() in _FENCED:
        return Fenced(sentence)
    return KafkaRefused(sentence) if cause.code() in _REFUSED else KafkaUnavailable(sentence)


@contextmanager
def kafka_errors() -> Iterator[None]:
    """Whatever confluent-kafka raises inside leaves as one of ours."""
    try:
        yield
    except KafkaException as error:
        raise translate(error) from error
