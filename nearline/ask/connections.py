"""How a command reaches the parts of an instance: its broker, its retriever, its cold tier.

An address in the settings wins; otherwise the data folder's `instance.json` has it. Nothing is opened before it is
asked for, and neither a model nor a search library is imported.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nearline.errors import BadSettings, NotReady, NotRunning
from nearline.settings.instance import Instance, read_instance
from nearline.settings.settings import Settings
from schemas.ids import ContextVersion, Generation
from streams.settings import KafkaSettings

if TYPE_CHECKING:
    import ssl

    from indexer.tiers import ColdReader
    from nearline.client.client import Client
    from retriever.client import RetrieverClient

ANSWER_TIMEOUT_S: Final = 30.0
_NOT_LISTENING: Final = (
    "the retriever does not listen yet: it is starting, or ends again and again; then the log of nearline up says why"
)


class Connections:
    """To the parts of one instance, for one command. `instance` reads `instance.json` and raises NotRunning."""

    def __init__(self, settings: Settings, instance: Callable[[], Instance]) -> None:
        self.settings = settings
        self.instance = instance

    def has_instance(self) -> bool:
        """Whether one runs on the data folder."""
        try:
            self.instance()
        except NotRunning:
            return False
        return True

    @cached_property
    def kafka(self) -> KafkaSettings:
        """Raises NotRunning."""
        kafka = self.settings.kafka
        if kafka.bootstrap_servers is not None:
            return kafka
        return kafka.model_copy(update={"bootstrap_servers": self.instance().bootstrap_servers})

    @cached_property
    def generation(self) -> Generation:
        """The generation that answers questions now. Raises NotRunning, RetrieverError."""
        if self.settings.serve.url is None:
            return Generation(self.instance().generation)
        with self.retriever() as client:
            return Generation(client.hot_positions().generation)

    @cached_property
    def context_version(self) -> ContextVersion:
        """Of the contexts that the serving generation reads. Raises NotRunning, RetrieverError, StreamsError."""
        from streams.generations.log import read_generations

        return read_generations(self.kafka).contexts_of(self.generation)

    @property
    def monitor(self) -> str | None:
        """The monitor's URL; None if there is none. Raises NotRunning."""
        url = self.settings.monitor.url
        return self.instance().monitor if url is None else url.rstrip("/")

    def candidates(self, timeout_s: float = ANSWER_TIMEOUT_S) -> "Client":
        """Asks for candidates, over gRPC. The caller closes it. Raises NotRunning, NotReady, BadCertificate,
        RetrieverError."""
        from nearline.client.client import Client

        serve = self.settings.serve
        key = None if serve.api_key is None else serve.api_key.get_secret_value()
        if serve.url is not None:
            url, ca_file, tls_name = serve.grpc_url or _next_port(serve.url), serve.ca_file, None
        else:
            url, ca_file, tls_name = self._own_retriever()
        return Client(url, api_key=key, ca_file=ca_file, tls_name=tls_name, timeout_s=timeout_s, connections=1)

    def _own_retriever(self) -> tuple[str, Path | None, str | None]:
        """The URL for gRPC of this data folder's retriever, its certificate, and the name in the certificate, which is
        that by which others reach the retriever."""
        from retriever.http import tls

        http_url, address = self.instance().url, self.instance().grpc
        if http_url is None or address is None:
            raise NotReady(_NOT_LISTENING)
        certificate_file = self.settings.serve.certificate_file
        if certificate_file is None:
            return f"http://{address}", None, None
        return f"https://{address}", certificate_file, tls.name_in_certificate(http_url, certificate_file)

    def retriever(self, timeout_s: float = ANSWER_TIMEOUT_S) -> "RetrieverClient":
        """Of several processes it asks any one. The caller closes it. Raises NotRunning, NotReady, BadCertificate."""
        return self._retriever_at(self._retriever_url(), timeout_s)

    def retrievers(self, timeout_s: float = ANSWER_TIMEOUT_S) -> "dict[str, RetrieverClient]":
        """A client for each process of the retriever, by the process's name; one for a retriever elsewhere. The caller
        closes them. Raises NotRunning, NotReady, BadCertificate."""
        url = self._retriever_url()
        urls = self.instance().workers if self.settings.serve.url is None else {}
        return {name: self._retriever_at(url, timeout_s) for name, url in (urls or {"serve": url}).items()}

    def _retriever_url(self) -> str:
        url = self.settings.serve.url or self.instance().url
        if url is None:
            raise NotReady(_NOT_LISTENING)
        return url

    def _retriever_at(self, url: str, timeout_s: float) -> "RetrieverClient":
        from retriever.client import RetrieverClient

        return RetrieverClient(url, self.settings.serve.api_key, timeout_s, self._trusted_certificates(url))

    def _trusted_certificates(self, url: str) -> "ssl.SSLContext | None":
        from retriever.http import tls

        serve = self.settings.serve
        if not url.startswith("https:"):
            return None
        if serve.url is None and serve.certificate_file is not None:
            return tls.trusting_only(serve.certificate_file)
        return tls.trusting_authorities(serve.ca_file)

    def cold(self, timeout_s: float = ANSWER_TIMEOUT_S, generation: Generation | None = None) -> "ColdReader":
        """Of the serving generation unless another is named. The caller closes it. Raises NotRunning, NotReady,
        IndexerError."""
        generation = generation or self.generation
        if self.settings.cold.url is not None:
            from indexer.cold.qdrant.tier import QdrantColdTier

            return QdrantColdTier(self.settings.cold, generation)
        from indexer.cold.socket.client import RemoteColdTier

        instance = self.instance()
        sockets = {here.generation: here.cold_socket for here in instance.places.values()}
        socket = sockets.get(generation) if generation != instance.generation else instance.cold_socket
        if socket is None:
            raise NotReady(
                f"no cold process of {generation} runs on {self.settings.data_dir}; if the cold tier is a Qdrant "
                "server, name it in the configuration as cold.url"
            )
        return RemoteColdTier(Path(socket), timeout_s)


def own_connections(settings: Settings) -> Connections:
    """For a process of an instance: to the instance of its data folder if one runs there, whichever one the commands
    are told to ask; else to what the settings name."""
    try:
        read_instance(settings.data_dir)
    except NotRunning:
        pass
    else:
        own = settings.serve.model_copy(update={"url": None})
        settings = settings.model_copy(update={"serve": own})
    return Connections(settings, lambda: read_instance(settings.data_dir))


def _next_port(url: str) -> str:
    """Raises BadSettings."""
    scheme, separator, address = url.rpartition("://")
    host, _, port = address.partition("/")[0].rpartition(":")
    if not port.isdecimal():
        raise BadSettings("serve.grpc_url: name where the retriever listens for gRPC; serve.url does not say a port")
    return f"{scheme}{separator}{host}:{int(port) + 1}"
