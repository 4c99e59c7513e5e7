"""Asks the retriever of this machine over HTTP whether it listens and is ready, with all its processes. Knows nothing
else of the retriever."""

import http.client
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Final

import structlog

from retriever.errors import BadCertificate
from retriever.http import tls
from retriever.settings import ServeSettings

_EVERY_S: Final = 0.5
_TIMEOUT_S: Final = 1.0
_NO_ANSWER: Final = (TimeoutError, ConnectionResetError, BrokenPipeError, ssl.SSLEOFError)

log = structlog.get_logger(__name__)


class RetrieverProbe:
    """`listens` and `ready` are the retriever's last answer.

    If the retriever answers too slowly, both stay as they were: a busy machine is no reason to hide where it listens.
    So do they if it breaks off: one of several processes may have ended, and others go on at the same port.
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
            with suppress(*_NO_ANSWER):
                status = self._ask()
                self.listens, self.ready = status is not None, status == http.HTTPStatus.OK
            self._due_at = time.monotonic() + _EVERY_S

    def _ask(self) -> int | None:
        """The status of the answer; None if nobody listens, or somebody else. Raises one of `_NO_ANSWER`."""
        connection = self._connection()
        try:
            connection.request("GET", "/readyz")
            status = connection.getresponse().status
            self._is_trusted = True
            return status
        except _NO_ANSWER:
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


class RetrieverProbes:
    """Of a retriever that may consist of several processes: asks the port that all of them share, and each of them at a
    port of its own. Where there is one process, only the first."""

    def __init__(self, serve: ServeSettings, names: Sequence[str]) -> None:
        """`serve` names all ports, and `names` are those of the processes. Raises BadCertificate."""
        self._shared = RetrieverProbe(serve.host, serve.port, serve.certificate_file)
        self._workers = {
            name: RetrieverProbe(serve.host, port, serve.certificate_file)
            for worker, name in enumerate(names)
            if (port := serve.own_port(worker)) is not None
        }
        self._in_turn = cycle((self._shared, *self._workers.values()))
        self.grpc: Final = self._shared.address(serve.port_of_grpc)

    @property
    def url(self) -> str:
        return self._shared.url

    @property
    def worker_urls(self) -> dict[str, str]:
        """Where each process alone can be asked. Empty where there is one."""
        return {name: probe.url for name, probe in self._workers.items()}

    @property
    def listens(self) -> bool:
        return self._shared.listens

    @property
    def ready(self) -> bool:
        """All of them are."""
        return self._shared.ready and all(probe.ready for probe in self._workers.values())

    def look(self) -> None:
        """Call this often. It asks one of them, so that several that are slow do not hold up the caller for long."""
        next(self._in_turn).look()
