"""Translates the errors of the Kafka client into ours (`streams/errors.py`), and reports refused logins.

All code that calls Kafka translates its errors with this. Knows no topic and no record.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from confluent_kafka import KafkaError, KafkaException

from streams.errors import Fenced, KafkaRefused, KafkaUnavailable, StreamsError

log = structlog.get_logger(__name__)

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


@contextmanager
def option_errors() -> Iterator[None]:
    """For the making of a client. That does not talk to the broker, so an error can only be about the options: raises
    KafkaRefused."""
    try:
        yield
    except KafkaException as error:
        raise KafkaRefused(f"kafka.options: {error.args[0].str().strip()}") from None
    except (TypeError, ValueError) as error:
        raise KafkaRefused(f"kafka.options: {error}") from None


def log_refused_login(error: KafkaError) -> None:
    """An `error_cb` of Kafka clients. Without this warning a wrong password or an untrusted certificate would look like
    an outage: the client goes on trying, and its caller only sees that no answer comes."""
    if error.code() in _LOGIN_REFUSED:
        log.warning("the broker and this client do not trust each other; see kafka.options", error=error.str())


class RefusedLogins:
    """Remembers why the broker refused the login of a client. To be passed as `error_cb`; the client calls it when it
    is polled."""

    def __init__(self) -> None:
        self.newest: str | None = None

    def __call__(self, error: KafkaError) -> None:
        log_refused_login(error)
        if error.code() in _LOGIN_REFUSED:
            self.newest = error.str()
