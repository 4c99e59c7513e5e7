"""Asks the retriever of this machine over HTTP whether it listens and is ready. Knows nothing else of the retriever."""

import http.client
import ssl
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from retriever.errors import BadCertificate
from retriever.http import tls

_EVERY_S: Final = 0.5
_TIMEOUT_S: Final = 1.0

log = structlog.get_logger(__name__)


class RetrieverProbe:
    """`listens` and `ready` are the retriever's last answer.

    If the retriever answers too slowly, both stay as they were: a busy machine is no reason to hide where it listens.
    """

    def __init__(self, host: str, port: int, certificate: Path | None = None) -> None:
        """`certificate`: the file of the retriever's certificate, if it speaks HTTPS. Raises BadCertificate."""
        self._certificate = certificate
        self._tls = None if certificate is None else tls.trusting_only(certificate)
        self._is_trusted = True
        self._host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        self._port = port
        self._due_at = 0.0
        self.listens = False
        self.ready = False

    @property
    def url(self) -> str:
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{self.address(self._port)}"

    def address(self, port: int) -> str:
        """Host and port, at which this machine reaches the retriever."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{port}"

    def look(self) -> None:
        """Call this often; the retriever is asked every half second."""
        if time.monotonic() >= self._due_at:
            with suppress(TimeoutError):
                status = self._ask()
                self.listens, self.ready = status is not None, status == http.HTTPStatus.OK
            self._due_at = time.monotonic() + _EVERY_S

    def _ask(self) -> int | None:
        """The status of the answer; None if nothing answers. Raises TimeoutError."""
        connection = self._connection()
        try:
            connection.request("GET", "/readyz")
            status = connection.getresponse().status
            self._is_trusted = True
            return status
        except TimeoutError:
            raise
        except ssl.SSLCertVerificationError as error:
            self._distrust(error)
            return None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def _distrust(self, error: ssl.SSLCertVerificationError) -> None:
        """Logs the first error, and reads the certificate's file again: it may have been renewed, and the retriever may
        use the new certificate already."""
        if self._is_trusted:
            log.warning("the certificate at the retriever's port is not believed", reason=error.verify_message)
        self._is_trusted = False
        if self._certificate is not None:
            with suppress(BadCertificate):
                self._tls = tls.trusting_only(self._certificate)

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        return http.client.HTTPSConnection(self._host, self._port, timeout=_TIMEOUT_S, context=self._tls)
