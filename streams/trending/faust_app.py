"""Makes the Faust app. It has the same servers and credentials as our other Kafka clients, and creates no topics."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faust
from faust.types.auth import CredentialsT

from streams.kafka.clients import client_config
from streams.kafka.options import check_for_trending, sasl_mechanism, security_protocol, ssl_context
from streams.settings import KafkaSettings
from streams.trending.faust_records import skip_unreadable_headers


def new_app(group: str, kafka: KafkaSettings, folder: Path) -> faust.App:
    """The app is not started. Its consumer group is `group`. Faust makes `folder` and, without tables, writes nothing
    to it."""
    skip_unreadable_headers()
    options = client_config(kafka)
    servers = options["bootstrap.servers"].split(",")
    return faust.App(
        group,
        broker=[f"kafka://{server.strip()}" for server in servers],
        broker_credentials=credentials(options),
        # No web server, no topics and tables of Faust's own, no leader election.
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        autodiscover=False,
        store="memory://",
        # Faust takes it for a template, in which braces have a meaning.
        datadir=Path(str(folder).replace("{", "{{").replace("}", "}}")),
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=6,
        broker_heartbeat_interval=1,
        broker_commit_interval=0.5,
        stream_buffer_maxsize=2048,
    )


def credentials(options: Mapping[str, Any]) -> CredentialsT | None:
    """Translates librdkafka's options to Faust's credentials. None if there is neither TLS nor SASL. Raises
    KafkaRefused."""
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
