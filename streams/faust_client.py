"""A Faust app that uses Kafka as our other clients do: the same servers and rights, nothing created on the side."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faust
from faust.types.auth import CredentialsT

from streams.kafka import client_config
from streams.settings import KafkaSettings


def new_app(group: str, kafka: KafkaSettings, folder: Path) -> faust.App:
    """Not started. Its consumer group has the name `group`. `folder` is made for Faust, which wants one and, without
    tables, keeps nothing there."""
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
    """librdkafka's names of what Faust asks for in its own way. None: neither TLS nor SASL."""
    protocol = str(options.get("security.protocol", "plaintext")).lower()
    context = _ssl_context(options) if protocol.endswith("ssl") else None
    if protocol.startswith("sasl"):
        mechanism = options.get("sasl.mechanism") or options.get("sasl.mechanisms") or "PLAIN"
        return faust.SASLCredentials(
            mechanism=mechanism,
            username=options.get("sasl.username"),
            password=options.get("sasl.password"),
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context else None


def _ssl_context(options: Mapping[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.get("ssl.ca.location"))
    if certificate := options.get("ssl.certificate.location"):
        context.load_cert_chain(certificate, options.get("ssl.key.location"), options.get("ssl.key.password"))
    if str(options.get("enable.ssl.certificate.verification", "true")).lower() == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
