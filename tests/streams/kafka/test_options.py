import pytest

from streams.errors import KafkaRefused
from streams.kafka.options import check_for_embedded_broker, check_options
from streams.settings import KafkaSettings


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"security.protocl": "ssl"}, 'No such configuration property: "security.protocl"'),
        ({"security.protocol": "sl"}, 'Invalid value "sl" for configuration property "security.protocol"'),
        ({"linger.ms": "-5"}, "value -5 is outside allowed range"),
        ({"security.protocol": "sasl_ssl", "sasl.mechanism": "PLAIN"}, "sasl.username and sasl.password must be set"),
        ({"security.protocol": "SASL_SSL"}, "sasl.mechanism is missing; security.protocol is SASL_SSL, so name one of"),
        ({"acks": "1"}, "`acks` must be set to `all`"),
        ({"max.poll.interval.ms": "10"}, "must be >= `session.timeout.ms`"),
        ({"error_cb": "no function"}, "error_cb"),
        ({"ssl.keystore.location": "k"}, "trending does not know ssl.keystore.location"),
        ({"security.protocol": "ssl", "ssl.ca.location": "/none.pem"}, "cannot be read"),
    ],
)
def test_an_option_that_is_wrong_for_any_client_is_named(options: dict[str, str], sentence: str) -> None:
    for servers in (None, "broker:9092"):
        with pytest.raises(KafkaRefused) as caught:
            check_options(KafkaSettings.model_validate({"bootstrap_servers": servers, "options": options}))
        assert str(caught.value).startswith("kafka.options: ")
        assert sentence in str(caught.value)
        assert "\n" not in str(caught.value)


def test_options_that_every_client_takes_are_taken() -> None:
    check_options(KafkaSettings())
    options = {"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN", "sasl.username": "u"}
    check_options(KafkaSettings.model_validate({"options": {**options, "sasl.password": "p", "linger.ms": "1"}}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("security.protocol", "SSL"),
        ("security.protocol", "sasl_plaintext"),
        ("broker.address.family", "v6"),
        ("bootstrap.servers", "broker:9092"),
        ("metadata.broker.list", "broker:9092"),
    ],
)
def test_an_option_with_which_nobody_would_reach_the_embedded_broker_is_named(name: str, value: str) -> None:
    with pytest.raises(KafkaRefused, match=f"^kafka.options: {name} does not fit the embedded broker; .*servers$"):
        check_for_embedded_broker(KafkaSettings.model_validate({"options": {name: value}}))


def test_replicas_that_the_embedded_broker_cannot_have_are_named() -> None:
    """It said so itself, when topics were made: after its start, and without the setting."""
    with pytest.raises(KafkaRefused, match=r"^kafka\.replication is 3, .* is one node; .*kafka\.bootstrap_servers$"):
        check_for_embedded_broker(KafkaSettings(replication=3))


def test_options_that_the_embedded_broker_can_serve_are_taken() -> None:
    options = {"linger.ms": "1", "security.protocol": "PLAINTEXT", "broker.address.family": "v4"}
    check_for_embedded_broker(KafkaSettings.model_validate({"options": options}))
