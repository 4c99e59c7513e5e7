"""Whether the retriever of this machine listens and is ready, asked over HTTP; and the port it is to listen on."""

import http.client
import socket
import ssl
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from nearline.errors import StartFailed
from nearline.ports import free_ports
from retriever.errors import BadCertificate
from retriever.http import tls

_EVERY_S: Final = 0.5
_TIMEOUT_S: Final = 1.0

log = structlog.get_logger(__name__)


class Probe:
    """Asks the retriever how it is, now and then.

    One that is slow to answer is what it was before: on a busy machine that is no reason to hide where it listens.
    """

    def __init__(self, host: str, port: int, certificate: Path | None = None) -> None:
        """`certificate`: the file of its own, where it speaks HTTPS. Raises BadCertificate."""
        self._certificate = certificate
        self._tls = None if certificate is None else tls.trusting_only(certificate)
        self._is_believed = True
        self._host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        self._port = port
        self._due_at = 0.0
        self.listens = False
        self.ready = False

    @property
    def url(self) -> str:
        scheme = "http" if self._tls is None else "https"
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{scheme}://{host}:{self._port}"

    def look(self) -> None:
        if time.monotonic() >= self._due_at:
            with suppress(TimeoutError):
                status = self._ask()
                self.listens, self.ready = status is not None, status == http.HTTPStatus.OK
            self._due_at = time.monotonic() + _EVERY_S

    def _ask(self) -> int | None:
        """Raises TimeoutError."""
        connection = self._connection()
        try:
            connection.request("GET", "/readyz")
            status = connection.getresponse().status
            self._is_believed = True
            return status
        except TimeoutError:
            raise
        except ssl.SSLCertVerificationError as error:
            self._disbelieve(error)
            return None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def _disbelieve(self, error: ssl.SSLCertVerificationError) -> None:
        """Says so once. The file may have been renewed, and the retriever started again since: reads it again."""
        if self._is_believed:
            log.warning("the certificate at the retriever's port is not believed", reason=error.verify_message)
        self._is_believed = False
        if self._certificate is not None:
            with suppress(BadCertificate):
                self._tls = tls.trusting_only(self._certificate)

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        return http.client.HTTPSConnection(self._host, self._port, timeout=_TIMEOUT_S, context=self._tls)


def listening_port(host: str, port: int) -> int:
    """The port itself if it is free, a free one for 0. Raises StartFailed."""
    if port == 0:
        return free_ports(1)[0]
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
    except OSError as error:
        raise StartFailed(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another with --port"
        ) from None
    return port
