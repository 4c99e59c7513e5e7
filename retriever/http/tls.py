"""HTTPS: what the retriever shows, and whom those who ask it believe. Light, because the commands import it."""

import re
import ssl
from pathlib import Path
from typing import Final

from retriever.errors import BadCertificate
from retriever.settings import ServeSettings

_PEM: Final = rb"(?s)-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----"


def server_context(settings: ServeSettings) -> ssl.SSLContext | None:
    """What the retriever shows; None: it speaks plain HTTP. Raises BadCertificate."""
    certificate, key = settings.certificate_file, settings.private_key_file
    if certificate is None or key is None:
        return None
    _read("certificate_file", certificate)
    _read("private_key_file", key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Without a password given here, OpenSSL would ask for that of an encrypted key on the terminal, and wait.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise BadCertificate(
            f"serve.certificate_file {certificate} and serve.private_key_file {key} do not serve "
            f"({error.reason or error}); both must be PEM, the key without a password and that of the certificate"
        ) from None
    return context


def trusting_authorities(ca_file: Path | None) -> ssl.SSLContext:
    """For a retriever elsewhere: those of the file, else those that the machine trusts. Raises BadCertificate."""
    if ca_file is not None:
        _read("ca_file", ca_file)
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise _no_pem("ca_file", ca_file, error) from None


def trusting_only(certificate: Path) -> ssl.SSLContext:
    """For the retriever of one's own data folder: whoever has the key of its very certificate, which is made for the
    name that others know it by, and not for the address of this machine. Raises BadCertificate."""
    # The first one is its own. Authorities may follow, and those sign for many others.
    first = re.search(_PEM, _read("certificate_file", certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=first[0].decode("ascii") if first else "")
    except (ssl.SSLError, ValueError) as error:
        raise _no_pem("certificate_file", certificate, error) from None
    return context


def _read(field: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadCertificate(f"serve.{field}: {path} cannot be read: {error.strerror}") from None


def _no_pem(field: str, path: Path | None, error: Exception) -> BadCertificate:
    return BadCertificate(f"serve.{field}: {path} holds no certificate in PEM ({error})")
