"""A Faust app that uses Kafka as our other clients do: the same servers and rights, nothing created on the side."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import faust
from faust.types.auth import CredentialsT

from streams.errors import KafkaRefused
from streams.faust_records import read_past_strange_headers
from streams.kafka import client_config
from streams.settings import KafkaSettings


def new_app(group: str, kafka: KafkaSettings, folder: Path) -> faust.App:
    """Not started. Its consumer group has the name `group`. `folder` is made for Faust, which wants one and, without
    tables, keeps nothing there."""
    read_past_strange_headers()
    options = client_config(kafka)
    servers = options["bootstrap.servers"].split(",")
    return faust.App(
        group,
        broker=[f"kafka://{server.strip()}" for server in servers],
        broker_credentials=credentials(options),
        # Neither a web server nor topics, tables or a leader of its own.
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        autodiscover=False,
        store="memory://",
        datadir=folder,
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=6,
        broker_heartbeat_interval=1,
        broker_commit_interval=0.5,
        stream_buffer_maxsize=2048,
    )


def credentials(options: Mapping[str, Any]) -> CredentialsT | None:
    """librdkafka's names of what Faust asks for in its own way. None: neither TLS nor SASL. Raises KafkaRefused for
    what has no counterpart there: trending would else talk to the broker in another way than all others."""
    protocol = str(options.get("security.protocol", "plaintext")).lower()
    for name in options:
        if name.startswith(("ssl.", "sasl.", "enable.ssl.")) and name not in _TRANSLATED:
            known = ", ".join(sorted(_TRANSLATED))
            raise KafkaRefused(f"kafka.options: trending does not know {name}; of these it knows {known}")
    context = _ssl_context(options) if protocol.endswith("ssl") else None
    if protocol.startswith("sasl"):
        return faust.SASLCredentials(
            mechanism=_mechanism(options),
            username=options.get("sasl.username"),
            password=options.get("sasl.password"),
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context else None


def _mechanism(options: Mapping[str, Any]) -> str:
    mechanism = str(options.get("sasl.mechanism") or options.get("sasl.mechanisms") or "PLAIN").upper()
    if mechanism not in _MECHANISMS:
        raise KafkaRefused(
            f"kafka.options: trending cannot use sasl.mechanism {mechanism}; use {', '.join(_MECHANISMS)}"
        )
    return mechanism


def _ssl_context(options: Mapping[str, Any]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.get("ssl.ca.location"), cadata=options.get("ssl.ca.pem"))
        if certificate := options.get("ssl.certificate.location"):
            context.load_cert_chain(certificate, options.get("ssl.key.location"), options.get("ssl.key.password"))
    except OSError as error:
        raise KafkaRefused(
            f"kafka.options: a file of ssl.ca, ssl.certificate or ssl.key cannot be read: {error}"
        ) from error
    if str(options.get("ssl.endpoint.identification.algorithm", "https")).lower() == "none":
        context.check_hostname = False
    if str(options.get("enable.ssl.certificate.verification", "true")).lower() == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


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
