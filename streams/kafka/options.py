"""Checks `kafka.options` before any process starts. Talks to no broker.

librdkafka refuses wrong names and values only when a client is made, and the trending stage has another client, which
knows fewer options. This module also translates the options for that client.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from streams.errors import KafkaRefused
from streams.kafka.clients import admin, client_config, new_consumer, new_producer
from streams.settings import KafkaSettings

_PLACEHOLDER: Final = "127.0.0.1:1"
"""An address for clients that are never used. That of the embedded broker is not known before it has started."""


def check_options(kafka: KafkaSettings) -> None:
    """Makes one client of each kind. Raises KafkaRefused, which names the option."""
    if not kafka.options:
        return
    addressed = kafka.model_copy(update={"bootstrap_servers": kafka.bootstrap_servers or _PLACEHOLDER})
    check_for_trending(client_config(addressed))
    admin(addressed)
    new_producer(addressed)
    new_consumer(addressed, "never-joined").close()


def check_for_embedded_broker(kafka: KafkaSettings) -> None:
    """The embedded broker listens without TLS and without a login on 127.0.0.1, and clients get its address from us.
    With other options they would wait for it for ever. It is one node, so it takes no replicas. Raises KafkaRefused,
    which names the setting."""
    if kafka.replication > 1:
        raise KafkaRefused(
            f"kafka.replication is {kafka.replication}, and the embedded broker is one node; take it out, or name your "
            "own broker as kafka.bootstrap_servers"
        )
    options = client_config(kafka.model_copy(update={"bootstrap_servers": _PLACEHOLDER}))
    refused = [name for name in kafka.options if name in ("bootstrap.servers", "metadata.broker.list")]
    if security_protocol(options) != "plaintext":
        refused.append("security.protocol")
    if str(options.get("broker.address.family", "any")).lower() == "v6":
        refused.append("broker.address.family")
    if refused:
        raise KafkaRefused(
            f"kafka.options: {refused[0]} does not fit the embedded broker; take it out, or name your own broker as "
            "kafka.bootstrap_servers"
        )


def check_for_trending(options: Mapping[str, Any]) -> None:
    """Raises KafkaRefused for an option of the connection that Faust's client does not have: without it that client
    would connect in another way than all others."""
    for name in options:
        if name.startswith(("ssl.", "sasl.", "enable.ssl.")) and name not in _TRANSLATED:
            known = ", ".join(sorted(_TRANSLATED))
            raise KafkaRefused(f"kafka.options: trending does not know {name}; of these it knows {known}")
    protocol = security_protocol(options)
    if protocol.startswith("sasl"):
        if not any(map(options.get, _MECHANISM_NAMES)):
            # The clients' defaults differ, and librdkafka's is Kerberos, which this build of it cannot do.
            raise KafkaRefused(
                f"kafka.options: sasl.mechanism is missing; security.protocol is {options['security.protocol']}, so "
                f"name one of {', '.join(_MECHANISMS)}"
            )
        sasl_mechanism(options)
    if protocol.endswith("ssl"):
        ssl_context(options)


def security_protocol(options: Mapping[str, Any]) -> str:
    return str(options.get("security.protocol", "plaintext")).lower()


def sasl_mechanism(options: Mapping[str, Any]) -> str:
    """Raises KafkaRefused."""
    mechanism = str(next(filter(None, map(options.get, _MECHANISM_NAMES)), "PLAIN")).upper()
    if mechanism not in _MECHANISMS:
        raise KafkaRefused(
            f"kafka.options: trending cannot use sasl.mechanism {mechanism}; use {', '.join(_MECHANISMS)}"
        )
    return mechanism


def ssl_context(options: Mapping[str, Any]) -> ssl.SSLContext:
    """Raises KafkaRefused."""
    _check_files(options)
    try:
        context = ssl.create_default_context(cafile=options.get("ssl.ca.location"), cadata=options.get("ssl.ca.pem"))
        if certificate := options.get("ssl.certificate.location"):
            context.load_cert_chain(certificate, options.get("ssl.key.location"), options.get("ssl.key.password"))
    except OSError as error:
        raise KafkaRefused(f"kafka.options: ssl.ca, ssl.certificate or ssl.key does not serve: {error}") from error
    if str(options.get("ssl.endpoint.identification.algorithm", "https")).lower() == "none":
        context.check_hostname = False
    if str(options.get("enable.ssl.certificate.verification", "true")).lower() == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _check_files(options: Mapping[str, Any]) -> None:
    """Reads each file, because the ssl module would not say which one it could not read."""
    for name in ("ssl.ca.location", "ssl.certificate.location", "ssl.key.location"):
        try:
            if name in options:
                Path(options[name]).read_bytes()
        except OSError as error:
            raise KafkaRefused(f"kafka.options: {name} {options[name]} cannot be read: {error.strerror}") from error


_MECHANISM_NAMES: Final = ("sasl.mechanism", "sasl.mechanisms")
_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_TRANSLATED: Final = frozenset(
    (
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.username",
        "sasl.password",
        "ssl.ca.location",
        "ssl.ca.pem",
        "ssl.certificate.location",
        "ssl.key.location",
        "ssl.key.password",
        "ssl.endpoint.identification.algorithm",
        "enable.ssl.certificate.verification",
    )
)
