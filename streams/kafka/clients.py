"""Makes Kafka clients from the settings, and translates Kafka's errors into ours.

Every client of this project has the options that are put together here. Knows no topic and no record.
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
"""An input record has at most 1 MB. The largest record that we write is the context of a member with 4,000 ids of 256
bytes that JSON must escape."""

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
_LOGIN_REFUSED: Final = (KafkaError._AUTHENTICATION, KafkaError._SSL)
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


def client_config(kafka: KafkaSettings, **overrides: Any) -> Config:
    """The options that all clients share. `overrides` win; their names are Kafka's, with dots."""
    return _config(kafka, {}, overrides)


def consumer_config(kafka: KafkaSettings, group: str, **overrides: Any) -> Config:
    """A consumer that reads committed records, begins at the earliest one, and commits nothing by itself."""
    defaults = {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        # The shortest that brokers allow by default. The partitions of a dead worker move to others after this time.
        "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 1_000,
        # The broker answers as soon as there is a record. An idle consumer asks again this often, and a seek may have
        # to wait this long.
        "fetch.wait.max.ms": 500,
        "queued.max.messages.kbytes": 65_536,
    }
    return _config(kafka, defaults, overrides)


def producer_config(kafka: KafkaSettings, **overrides: Any) -> Config:
    """An idempotent producer with the partitioner of Kafka's Java clients."""
    defaults = {
        "enable.idempotence": True,
        "message.max.bytes": MAX_RECORD_BYTES,
        "compression.type": "lz4",
        "linger.ms": 5,
    }
    # kafka.options cannot change the partitioner: it decides which worker holds the row of a key.
    return _config(kafka, defaults, {"partitioner": "murmur2_random", **overrides})


def _config(kafka: KafkaSettings, defaults: Config, overrides: Config) -> Config:
    """`kafka.options` win over our defaults, and the overrides of the caller win over both."""
    if kafka.bootstrap_servers is None:
        raise KafkaRefused("no broker is named; set kafka.bootstrap_servers, or start one with: nearline up")
    options = {name: value.get_secret_value() for name, value in kafka.options.items()}
    # log_level 0, because our errors already say what librdkafka would write to stderr.
    shared = {"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0, "error_cb": log_refused_login}
    return {**shared, **defaults, **options, **overrides}


def log_refused_login(error: KafkaError) -> None:
    """An `error_cb`. Without it a wrong password or an untrusted certificate would look like an outage: the client goes
    on trying, and its caller only sees that no answer comes."""
    if error.code() in _LOGIN_REFUSED:
        log.warning("the broker and this client do not trust each other; see kafka.options", error=error.str())


class RefusedLogins:
    """Remembers why the broker refused the login of a client. An `error_cb`: called when the client is polled."""

    def __init__(self) -> None:
        self.newest: str | None = None

    def __call__(self, error: KafkaError) -> None:
        log_refused_login(error)
        if error.code() in _LOGIN_REFUSED:
            self.newest = error.str()


def admin(kafka: KafkaSettings, error_cb: Callable[[KafkaError], None] = log_refused_login) -> AdminClient:
    """Raises KafkaRefused for a wrong option in `kafka.options`, as `new_consumer` and `new_producer` do."""
    with _option_errors():
        return AdminClient(client_config(kafka, error_cb=error_cb))


def new_consumer(kafka: KafkaSettings, group: str, **overrides: Any) -> Consumer:
    """With the options of `consumer_config`. Close it."""
    with _option_errors():
        return Consumer(consumer_config(kafka, group, **overrides))


def new_producer(kafka: KafkaSettings, **overrides: Any) -> Producer:
    """With the options of `producer_config`."""
    with _option_errors():
        return Producer(producer_config(kafka, **overrides))


@contextmanager
def _option_errors() -> Iterator[None]:
    """A client does not talk to the broker while it is made, so an error then can only be about its options."""
    try:
        yield
    except KafkaException as error:
        raise KafkaRefused(f"kafka.options: {error.args[0].str().strip()}") from None
    except (TypeError, ValueError) as error:
        raise KafkaRefused(f"kafka.options: {error}") from None


def translate(error: KafkaError | KafkaException) -> StreamsError:
    """Decides by the error's code, never by its text. An unknown code is taken for an outage."""
    cause = error.args[0] if isinstance(error, KafkaException) else error
    if not isinstance(cause, KafkaError):
        return KafkaUnavailable(f"Kafka: {cause}")
    sentence = f"Kafka: {cause.str()} ({cause.name()})"
    if cause.code() in _FENCED:
        return Fenced(sentence)
    return KafkaRefused(sentence) if cause.code() in _REFUSED else KafkaUnavailable(sentence)


@contextmanager
def kafka_errors() -> Iterator[None]:
    """Translates every KafkaException that is raised inside into one of our errors."""
    try:
        yield
    except KafkaException as error:
        raise translate(error) from error
