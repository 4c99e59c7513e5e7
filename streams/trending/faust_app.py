"""A Faust app that uses Kafka as our other clients do: the same servers and rights, nothing created on the side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faust
from faust.types.auth import CredentialsT

from streams.kafka.clients import client_config
from streams.kafka.options import check_for_trending, sasl_mechanism, security_protocol, ssl_context
from streams.settings import KafkaSettings
from streams.trending.faust_records import read_past_strange_headers


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
    """librdkafka's names of what Faust asks for in its own way. None: neither TLS nor SASL. Raises KafkaRefused."""
    check_for_trending(options)
    protocol = security_protocol(options)
    context = ssl_context(options) if protocol.endswith("ssl") else None
    if protocol.startswith("sasl"):
        return faust.SASLCredentials(
            mechanism=sasl_mechanism(options),
            username=options.get("sasl.username"),
            password=options.get("sasl.password"),
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context else None
