"""From a command to the parts of an instance: its broker, its retriever, its cold tier.

What the configuration names wins; the rest is in the data folder's `instance.json`. Opens nothing before it is asked
for, and imports neither a model nor a search library.
"""

from collections.abc import Callable
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nearline.errors import NotReady
from nearline.settings.instance import Instance
from nearline.settings.settings import Settings
from schemas.ids import Generation
from streams.settings import KafkaSettings

if TYPE_CHECKING:
    import ssl

    from indexer.tiers import ColdReader
    from nearline.ask.status import HotReport, Sources
    from retriever.client import RetrieverClient
    from schemas.api import ProcessStatus

ANSWER_TIMEOUT_S: Final = 30.0

_STATUS_S: Final = 3.0
_COLD_STATUS_S: Final = 3.0
"""A flush may hold an answer of the cold process up for a while."""


class Connections:
    """The parts of one instance, for one command. `instance` reads `instance.json` and raises NotRunning."""

    def __init__(self, settings: Settings, instance: Callable[[], Instance]) -> None:
        self.settings = settings
        self._instance = instance

    @cached_property
    def kafka(self) -> KafkaSettings:
        """Raises NotRunning."""
        kafka = self.settings.kafka
        if kafka.bootstrap_servers is not None:
            return kafka
        return kafka.model_copy(update={"bootstrap_servers": self._instance().bootstrap_servers})

    @cached_property
    def generation(self) -> Generation:
        """The one that questions are answered with now. Raises NotRunning, RetrieverError."""
        if self.settings.serve.url is None:
            return Generation(self._instance().generation)
        with self.retriever() as client:
            return Generation(client.hot_positions().generation)

    def retriever(self, timeout_s: float = ANSWER_TIMEOUT_S) -> "RetrieverClient":
        """Close it. Raises NotRunning, NotReady, BadCertificate."""
        from retriever.client import RetrieverClient

        serve = self.settings.serve
        url = serve.url or self._instance().url
        if url is None:
            raise NotReady("the retriever does not listen yet; wait for nearline up to print: ready")
        return RetrieverClient(url, serve.api_key, timeout_s, self._believed(url))

    def _believed(self, url: str) -> "ssl.SSLContext | None":
        from retriever.http import tls

        serve = self.settings.serve
        if not url.startswith("https:"):
            return None
        if serve.url is None and serve.certificate_file is not None:
            return tls.trusting_only(serve.certificate_file)
        return tls.trusting_authorities(serve.ca_file)

    def cold(self, timeout_s: float = ANSWER_TIMEOUT_S) -> "ColdReader":
        """Close it. Raises NotRunning, NotReady, IndexerError."""
        if self.settings.cold.url is not None:
            from indexer.cold.qdrant_tier import QdrantColdTier

            return QdrantColdTier(self.settings.cold, self.generation)
        from indexer.cold.socket_client import RemoteColdTier

        socket = self._instance().cold_socket
        if socket is None:
            raise NotReady("the cold tier is a Qdrant server; name it in the configuration as cold.url")
        return RemoteColdTier(Path(socket), timeout_s)

    def status_sources(self) -> "Sources":
        """Raises NotRunning where neither an instance nor a retriever elsewhere is known."""
        from nearline.ask.status import Sources

        elsewhere = self.settings.serve.url is not None
        return Sources(
            processes=list if elsewhere else self._processes,
            generation=None if elsewhere else self.generation,
            kafka=lambda: self.kafka,
            hot=self._hot_report,
            cold=lambda: closing(self.cold(_COLD_STATUS_S)),
        )

    def _processes(self) -> "list[ProcessStatus]":
        from schemas.api import ProcessStatus

        found = self._instance().processes
        return [ProcessStatus(name=one.name, pid=one.pid, restarts=one.restarts) for one in found]

    def _hot_report(self) -> "HotReport":
        from nearline.ask.status import HotReport

        with self.retriever(_STATUS_S) as client:
            return HotReport(client.ready(), client.hot_positions())
