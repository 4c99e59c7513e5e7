"""How a client reaches retrievers: the address, TLS, several connections, and the metadata of every call.

Both clients use it, with `grpc` or `grpc.aio`, whose functions have the same names.
"""

from collections.abc import Callable, Iterable
from itertools import cycle
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc

from nearline.client.question import Trace
from retriever.errors import BadCertificate, NotAllowed, RequestRefused

Metadata = tuple[tuple[str, str | bytes], ...]

_MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
"""64 answers of 2,048 candidates with ids of 256 bytes are 34 MB."""
_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.primary_user_agent", "nearline-python"),
    ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
    # A host name may stand for several retrievers, as a headless service of Kubernetes does: ask them in turn.
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
    # gRPC would wait a second before it connects again, and all calls in between would fail.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 3_000),
    # A retriever that is gone without a word, such as a machine without power, is noticed after 5 s without a sign of
    # life, and another connection is made. Retrievers allow a ping each 10 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Each channel has connections of its own. Otherwise all channels to the same address would share one.
    ("grpc.use_local_subchannel_pool", 1),
)


class Method(NamedTuple):
    path: str
    """Such as /nearline.v1.Retriever/Retrieve."""
    serialize: Callable[[Any], bytes]
    deserialize: Callable[[bytes], Any]


class Connections:
    """Several connections to one address, which calls take in turn: behind a balancer each may lead to another
    retriever. None is opened before the first call."""

    def __init__(
        self,
        url: str,
        methods: Iterable[Method],
        *,
        api_key: str | None,
        ca_file: Path | str | None,
        tls_name: str | None,
        number: int,
        library: Any,
    ) -> None:
        """`library` is `grpc` or `grpc.aio`. Raises RequestRefused, NotAllowed, BadCertificate."""
        address = address_of(url)
        self.target = address.target
        self._key = key_metadata(api_key)
        if address.tls:
            trusted = credentials(None if ca_file is None else Path(ca_file))
            name = () if tls_name is None else (("grpc.ssl_target_name_override", tls_name),)
            options = (*_OPTIONS, *name)
            self.channels = [library.secure_channel(self.target, trusted, options) for _ in range(max(1, number))]
        else:
            self.channels = [library.insecure_channel(self.target, _OPTIONS) for _ in range(max(1, number))]
        methods = tuple(methods)
        stubs = [{each.path: channel.unary_unary(*each) for each in methods} for channel in self.channels]
        self._in_turn = cycle(stubs)

    def method(self, method: Method) -> Any:
        """What calls it, on the connection whose turn it is. Any thread."""
        return next(self._in_turn)[method.path]

    def metadata(self, trace: Trace) -> Metadata:
        """Raises RequestRefused."""
        return (*self._key, *trace_metadata(trace))


class Address(NamedTuple):
    target: str
    """As gRPC takes it: host:port."""
    tls: bool


def address_of(url: str) -> Address:
    """Of `host:port` or `http://host:port` without TLS, `https://host:port` with it, or `https://host` for port 443.
    Raises RequestRefused."""
    scheme, separator, target = url.removesuffix("/").rpartition("://")
    has_port = scheme == "https" or ":" in target
    if (separator and scheme not in ("http", "https")) or not target or not has_port or set(target) & set("/ "):
        raise RequestRefused(f"{url!r} is not the address of a retriever; give one such as localhost:8081")
    return Address(target, tls=scheme == "https")


def credentials(ca_file: Path | None) -> grpc.ChannelCredentials:
    """Trusts the authorities in this file, or without one those in gRPC's own list. Raises BadCertificate."""
    if ca_file is None:
        return grpc.ssl_channel_credentials()
    try:
        content = ca_file.read_bytes()
    except OSError as error:
        raise BadCertificate(f"ca_file: {ca_file} cannot be read: {error.strerror}") from None
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise BadCertificate(f"ca_file: {ca_file} holds no certificate in PEM")
    return grpc.ssl_channel_credentials(root_certificates=content)


def key_metadata(api_key: str | None) -> Metadata:
    """Raises NotAllowed for a key that cannot be sent. gRPC would refuse it too, but its error would show the key."""
    if api_key is None:
        return ()
    if not api_key or not api_key.isprintable():
        raise NotAllowed("the API key is empty or holds a character that no key has, such as a line end")
    # Metadata is ASCII, except where its name ends in -bin.
    return (("x-api-key", api_key),) if api_key.isascii() else (("x-api-key-bin", api_key.encode()),)


def trace_metadata(trace: Trace) -> Metadata:
    """Raises RequestRefused for an id that cannot be sent."""
    named = (("request_id", "x-request-id", trace.request_id), ("traceparent", "traceparent", trace.traceparent))
    for field, _, value in named:
        if value is not None and (not value.isascii() or not value.isprintable()):
            raise RequestRefused(f"{field}: give printable ASCII characters only")
    return tuple((key, value) for _, key, value in named if value is not None)
