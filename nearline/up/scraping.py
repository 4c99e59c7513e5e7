"""Reads the metrics that a process of this data folder says. Knows no metric."""

import json
import ssl
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import structlog
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from nearline.settings.process_names import parse
from nearline.up.metrics import targets_folder
from nearline.up.names import SERVE
from retriever.errors import RetrieverError
from retriever.http import tls
from retriever.settings import ServeSettings

_SCRAPE_S: Final = 2.0

log = structlog.get_logger(__name__)


class Scraper:
    """Each process announces where it says its metrics. The retriever wants its key, and may have a certificate."""

    def __init__(self, data_dir: Path, serve: ServeSettings) -> None:
        self._data_dir = data_dir
        self._serve = serve

    def names(self) -> list[str]:
        """Of the processes that have announced an address."""
        return sorted(file.stem for file in targets_folder(self._data_dir).glob("*.json"))

    def metrics_of(self, name: str, beginning: tuple[str, ...] = ("",)) -> list[Metric]:
        """Those whose samples have names that begin so, untyped where not all are wanted. Empty for a process without
        metrics, and for one that does not answer."""
        try:
            groups = json.loads((targets_folder(self._data_dir) / f"{name}.json").read_bytes())
            request, context = self._request(name, groups[0]["targets"][0])
            with urllib.request.urlopen(request, timeout=_SCRAPE_S, context=context) as answer:
                lines = answer.read().decode().splitlines(keepends=True)
            return list(text_string_to_metric_families("".join(_wanted(lines, beginning))))
        except FileNotFoundError:
            return []
        except (OSError, ValueError, RetrieverError) as error:
            log.debug("a process does not say its metrics", process=name, error=str(error))
            return []

    def _request(self, name: str, address: str) -> tuple[urllib.request.Request, ssl.SSLContext | None]:
        """Raises BadCertificate."""
        if parse(name).stage != SERVE:
            return urllib.request.Request(f"http://{address}/metrics"), None
        key, certificate = self._serve.api_key, self._serve.certificate_file
        request = urllib.request.Request(f"{self._serve.scheme}://{address}/metrics")
        if key is not None:
            request.add_header("X-API-Key", key.get_secret_value())
        return request, None if certificate is None else tls.trusting_only(certificate)


def _wanted(lines: Iterable[str], beginning: tuple[str, ...]) -> Iterable[str]:
    """Parsing costs much more than this."""
    return (line for line in lines if line.startswith(beginning))
