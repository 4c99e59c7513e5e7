import ssl
from pathlib import Path

import pytest

from streams.errors import KafkaRefused
from streams.settings import KafkaSettings
from streams.trending.faust_app import credentials, new_app


def test_plain_connections_need_no_credentials() -> None:
    assert credentials({}) is None


def test_sasl_with_and_without_tls() -> None:
    options = {"sasl.mechanisms": "SCRAM-SHA-256", "sasl.username": "u", "sasl.password": "p"}
    plain = credentials({**options, "security.protocol": "SASL_PLAINTEXT"})
    encrypted = credentials({**options, "security.protocol": "sasl_ssl"})
    assert plain is not None
    assert encrypted is not None
    assert (plain.protocol.value, encrypted.protocol.value) == ("SASL_PLAINTEXT", "SASL_SSL")
    assert encrypted.mechanism.value == "SCRAM-SHA-256"  # type: ignore[attr-defined]


def test_tls_alone() -> None:
    tls = credentials({"security.protocol": "ssl", "enable.ssl.certificate.verification": "false"})
    assert tls is not None
    assert tls.protocol.value == "SSL"


def test_every_broker_of_the_list_is_known() -> None:
    app = new_app("trending", KafkaSettings(bootstrap_servers="one:1, two:2"), Path("folder"))
    assert [str(url) for url in app.conf.broker] == ["kafka://one:1", "kafka://two:2"]
    assert app.conf.id == "trending"


def test_its_folder_may_have_any_name() -> None:
    """Faust takes the name for a template."""
    folder = Path("a,b %d ${x} {conf.id} {}")
    app = new_app("trending", KafkaSettings(bootstrap_servers="one:1"), folder)
    assert app.conf.datadir == folder


def test_without_a_broker_it_says_so() -> None:
    with pytest.raises(KafkaRefused, match=r"kafka\.bootstrap_servers"):
        new_app("trending", KafkaSettings(), Path("folder"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"security.protocol": "sasl_ssl", "sasl.mechanism": "OAUTHBEARER"}, "cannot use sasl.mechanism OAUTHBEARER"),
        ({"security.protocol": "ssl", "ssl.keystore.location": "k"}, "does not know ssl.keystore.location"),
        ({"security.protocol": "ssl", "ssl.ca.location": "/none.pem"}, "cannot be read"),
    ],
)
def test_what_faust_cannot_do_is_said_and_not_left_out(options: dict[str, str], sentence: str) -> None:
    with pytest.raises(KafkaRefused, match=rf"kafka\.options: .*{sentence}"):
        credentials(options)


def test_a_name_that_need_not_match_and_a_certificate_that_need_not_hold() -> None:
    named = {"security.protocol": "ssl", "ssl.endpoint.identification.algorithm": "none"}
    any_one = {"security.protocol": "ssl", "enable.ssl.certificate.verification": "false"}
    contexts = [credentials(options).context for options in (named, any_one)]  # type: ignore[union-attr]
    assert [(context.check_hostname, context.verify_mode) for context in contexts] == [
        (False, ssl.CERT_REQUIRED),
        (False, ssl.CERT_NONE),
    ]
