"""TLS contexts: of the retriever as a server, and of its clients. Imports little, because the commands import it."""

import re
import socket
import ssl
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from retriever.errors import BadCertificate, RetrieverUnavailable
from retriever.settings import ServeSettings

_PEM: Final = rb"(?s)-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----"

_CONNECT_S: Final = 3.0


def server_context(settings: ServeSettings) -> ssl.SSLContext | None:
    """With the retriever's certificate. None if it speaks plain HTTP. Raises BadCertificate."""
    certificate, key = settings.certificate_file, settings.private_key_file
    if certificate is None or key is None:
        return None
    _read("certificate_file", certificate)
    _read("private_key_file", key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # If no password were passed, OpenSSL would ask for the password of an encrypted key on the terminal, and wait.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise BadCertificate(
            f"serve.certificate_file {certificate} and serve.private_key_file {key} cannot be used "
            f"({error.reason or error}); both must be PEM, and the key must be the certificate's and without a password"
        ) from None
    return context


def certificate_end(settings: ServeSettings) -> float | None:
    """When the first certificate of the chain in the file ends, in seconds of the Unix epoch: clients then refuse all
    of it. None if the retriever speaks plain HTTP. Raises BadCertificate."""
    if settings.certificate_file is None:
        return None
    from cryptography.x509 import load_pem_x509_certificates

    try:
        chain = load_pem_x509_certificates(_read("certificate_file", settings.certificate_file))
    except ValueError as error:
        raise _no_pem("certificate_file", settings.certificate_file, error) from None
    return min(certificate.not_valid_after_utc.timestamp() for certificate in chain)


def trusting_authorities(ca_file: Path | None) -> ssl.SSLContext:
    """For clients of a remote retriever. Trusts the authorities in the file, or without a file those that this machine
    trusts. Raises BadCertificate."""
    if ca_file is not None:
        _read("ca_file", ca_file)
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise _no_pem("ca_file", ca_file, error) from None


def trusting_only(certificate: Path) -> ssl.SSLContext:
    """For clients on the retriever's own machine. Trusts exactly this certificate and no authority. Does not check the
    host name: the certificate names the host by which others reach the retriever, not the address of this machine.
    Raises BadCertificate."""
    # Only the first certificate of the file is the retriever's. The others are authorities, which sign for many hosts.
    first = re.search(_PEM, _read("certificate_file", certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=first[0].decode("ascii") if first else "")
    except (ssl.SSLError, ValueError) as error:
        raise _no_pem("certificate_file", certificate, error) from None
    return context


def name_in_certificate(url: str, certificate: Path) -> str:
    """A host name or address for which the certificate of the retriever at this URL is valid, if it is the one in the
    file. Raises RetrieverUnavailable, BadCertificate."""
    parts = urlsplit(url)
    context = trusting_only(certificate)
    try:
        with (
            socket.create_connection((parts.hostname, parts.port), _CONNECT_S) as connection,
            context.wrap_socket(connection, server_hostname=parts.hostname) as secured,
        ):
            content: dict[str, Any] = secured.getpeercert() or {}
    except OSError as error:
        raise RetrieverUnavailable(f"the retriever at {url} cannot be asked for its certificate: {error}") from error
    names = (name for kind, name in content.get("subjectAltName", ()) if kind in ("DNS", "IP Address"))
    return str(next(names, parts.hostname)).replace("*", "any")


def _read(field: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadCertificate(f"serve.{field}: {path} cannot be read: {error.strerror}") from None


def _no_pem(field: str, path: Path | None, error: Exception) -> BadCertificate:
    return BadCertificate(f"serve.{field}: {path} holds no certificate in PEM ({error})")
