"""Makes Kafka clients from the settings.

Every client of this project has the options that are put together here. Knows no topic and no record.
"""

from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient

from streams.errors import KafkaRefused
from streams.kafka.kafka_errors import log_refused_login, option_errors
from streams.kafka.records import MAX_RECORD_BYTES
from streams.settings import KafkaSettings

Config = dict[str, Any]


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


def admin(kafka: KafkaSettings, error_cb: Callable[[KafkaError], None] = log_refused_login) -> AdminClient:
    """Raises KafkaRefused for a wrong option in `kafka.options`, as `new_consumer` and `new_producer` do."""
    with option_errors():
        return AdminClient(client_config(kafka, error_cb=error_cb))


def new_consumer(kafka: KafkaSettings, group: str, **overrides: Any) -> Consumer:
    """With the options of `consumer_config`. Close it."""
    with option_errors():
        return Consumer(consumer_config(kafka, group, **overrides))


def new_producer(kafka: KafkaSettings, **overrides: Any) -> Producer:
    """With the options of `producer_config`."""
    with option_errors():
        return Producer(producer_config(kafka, **overrides))
