"""HTTPS with a private authority: who is trusted, and the errors for files that cannot be used."""

import re
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from retriever.client import RetrieverClient
from retriever.errors import BadCertificate, RetrieverUnavailable
from retriever.http import tls
from retriever.settings import ServeSettings
from tests.kit.certificates import Certificate, certificate
from tests.kit.retrievers import RetrieverSetup, Served

NAME = "retriever.example"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Certificate:
    return certificate(tmp_path_factory.mktemp("certificate"), NAME, authority)


@pytest.fixture(scope="module")
def served(files: Certificate) -> Iterator[Served]:
    with Served(RetrieverSetup(warm=False), **files.settings()) as served:
        yield served


@pytest.fixture
def other(tmp_path: Path, authority: trustme.CA) -> Certificate:
    """Of the same authority, for the address at which the tests' retriever listens."""
    return certificate(tmp_path, "127.0.0.1", authority)


def test_its_own_commands_believe_its_certificate_whatever_its_name(served: Served, files: Certificate) -> None:
    assert served.url.startswith("https://127.0.0.1:")
    with RetrieverClient(served.url, tls=tls.trusting_only(files.certificate_file)) as client:
        for _ in range(2):
            assert client.status().generation == "test-0"


def test_they_believe_nobody_else_of_the_same_authority(served: Served, other: Certificate) -> None:
    with (
        RetrieverClient(served.url, tls=tls.trusting_only(other.certificate_file)) as client,
        pytest.raises(RetrieverUnavailable, match=r"certificate of the retriever at .* is not trusted"),
    ):
        client.status()


def test_others_believe_an_authority_that_they_are_told(other: Certificate) -> None:
    with Served(RetrieverSetup(warm=False), **other.settings()) as served:
        with RetrieverClient(served.url, tls=tls.trusting_authorities(other.ca_file)) as client:
            assert client.status().generation == "test-0"
        with (
            RetrieverClient(served.url, tls=tls.trusting_authorities(None)) as client,
            pytest.raises(RetrieverUnavailable, match=r"is not trusted .* serve\.ca_file"),
        ):
            client.status()


def test_others_want_the_right_name(served: Served, files: Certificate) -> None:
    with (
        RetrieverClient(served.url, tls=tls.trusting_authorities(files.ca_file)) as client,
        pytest.raises(RetrieverUnavailable, match="IP address mismatch"),
    ):
        client.status()


def test_plain_http_gets_no_answer(served: Served) -> None:
    with (
        RetrieverClient(served.url.replace("https", "http")) as client,
        pytest.raises(RetrieverUnavailable, match="does not answer"),
    ):
        client.status()


def test_prometheus_is_told_until_when_all_of_the_chain_is_valid(served: Served, tmp_path: Path) -> None:
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    short = trustme.CA().issue_cert("soon.example", not_after=ends)
    chain, file = served.settings.certificate_file, tmp_path / "chain.pem"
    assert chain is not None
    file.write_bytes(chain.read_bytes() + short.cert_chain_pems[0].bytes())
    settings = served.settings.model_copy(update={"certificate_file": file})
    assert tls.certificate_end(settings) == ends.timestamp()
    assert tls.certificate_end(ServeSettings()) is None
    with urllib.request.urlopen(f"{served.url}/metrics", context=tls.trusting_only(chain), timeout=30) as answer:
        body = answer.read().decode()
    said = re.findall(r"^nearline_certificate_end_timestamp_seconds (.*)$", body, re.MULTILINE)
    assert [float(value) for value in said] == [tls.certificate_end(served.settings)]


def test_a_file_that_does_not_serve_is_named(tmp_path: Path, files: Certificate, other: Certificate) -> None:
    missing, empty = tmp_path / "none.pem", tmp_path / "empty.pem"
    empty.touch()
    for certificate_file, private_key_file, sentence in (
        (missing, files.private_key_file, f"serve.certificate_file: {missing} cannot be read: No such file"),
        (files.certificate_file, missing, f"serve.private_key_file: {missing} cannot be read: No such file"),
        (files.certificate_file, other.private_key_file, "cannot be used .*the key must be the certificate's"),
        (files.certificate_file, empty, "cannot be used .*both must be PEM"),
    ):
        with pytest.raises(BadCertificate, match=sentence):
            tls.server_context(ServeSettings(certificate_file=certificate_file, private_key_file=private_key_file))
    for trusting in (tls.trusting_only, tls.trusting_authorities):
        with pytest.raises(BadCertificate, match=f"{empty} holds no certificate"):
            trusting(empty)
        with pytest.raises(BadCertificate, match=f"{missing} cannot be read"):
            trusting(missing)
    with pytest.raises(BadCertificate, match=f"{empty} holds no certificate"):
        tls.certificate_end(ServeSettings(certificate_file=empty, private_key_file=files.private_key_file))
