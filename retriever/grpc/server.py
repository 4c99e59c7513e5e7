"""The gRPC server: its port, its limits, its API key, health and reflection.

Runs in the event loop of the HTTP server, so that both share one queue without a lock.
"""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from pydantic import SecretStr

from retriever.errors import CannotListen, RetrieverError
from retriever.grpc import health
from retriever.grpc.arrivals import Arrivals
from retriever.grpc.calls import SERVICE, Calls, Context, refuse, trace_of_call
from retriever.service.api_key import REFUSAL, is_allowed
from retriever.service.problems import Trouble
from retriever.service.service import Service
from retriever.settings import ServeSettings
from schemas.api import ProblemCode, StatusResponse

MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
"""As for HTTP: the largest useful request has 40,000 ids."""
HANDSHAKE_S: Final = 10.0
"""Time for the TLS handshake and the greeting of HTTP/2. A slow line takes one second."""
IDLE_S: Final = 300.0
"""A connection without calls is closed after this time. Clients open it again when they need it."""
GRACE_S: Final = 2.0
"""Running calls may take this long after a stop. Almost all questions take less; and whoever watches the health has a
call open all the time."""
AGE_S: Final = 3600.0
"""After this time, a tenth more or less, a connection takes no further calls, and clients open another: so replicas
behind a balancer that are new get their share."""
AGE_GRACE_S: Final = 60.0
"""After this time more it is closed. So nothing stays that a client has left open without reading it."""
MAX_CONNECTIONS: Final = 10_000
"""An idle one takes 17 kB."""
_HEALTH_EVERY_S: Final = 0.2
_KEYS: Final = ("x-api-key", "x-api-key-bin")
"""Metadata is ASCII, except where its name ends in -bin."""
_HEALTH: Final = f"/{health.SERVICE}/"


class GrpcServer:
    """Make it, start it and stop it in one event loop."""

    def __init__(
        self,
        service: Service,
        problems: Callable[[], list[str]],
        status: Callable[[], StatusResponse],
        settings: ServeSettings,
        *,
        shared: bool = False,
    ) -> None:
        """`shared`: other processes of the same user may listen at the same port, and each gets some connections."""
        self._problems = problems
        self._settings = settings
        self._shared = shared
        arrivals = Arrivals()
        self._health = health.Health(("", SERVICE), arrivals)
        interceptors = [] if settings.api_key is None else [_ApiKey(settings.api_key)]
        self._server = grpc.aio.server(interceptors=interceptors, options=options(shared=shared))
        # grpcio waits for the next call of each registered method, so generic ones cost less.
        self._server.add_generic_rpc_handlers((Calls(service, status, arrivals), self._health, _reflection(arrivals)))
        self._health_task: asyncio.Task[None] | None = None

    def listen(self) -> str:
        """Returns the address, such as 127.0.0.1:8081. Raises CannotListen."""
        host, port = self._settings.host, self._settings.port_of_grpc
        host = f"[{host}]" if ":" in host else host
        credentials = _credentials(self._settings)
        try:
            if credentials is None:
                bound = self._server.add_insecure_port(f"{host}:{port}")
            else:
                bound = self._server.add_secure_port(f"{host}:{port}", credentials)
        except RuntimeError as error:
            why = _why(self._settings.host, port, shared=self._shared)
            raise CannotListen(f"cannot listen on {self._settings.host} port {port} for gRPC: {why}") from error
        return f"{host}:{bound}"

    async def start(self) -> None:
        self._tell_health()
        await self._server.start()
        self._health_task = asyncio.create_task(self._watch_health())

    async def stop(self) -> None:
        """New calls are refused, and health says that none are taken."""
        self._health.stop()
        if self._health_task is not None:
            self._health_task.cancel()
            with suppress(asyncio.CancelledError):
                await self._health_task
        await self._server.stop(GRACE_S)

    async def _watch_health(self) -> None:
        while True:
            await asyncio.sleep(_HEALTH_EVERY_S)
            self._tell_health()

    def _tell_health(self) -> None:
        self._health.tell(serving=not self._problems())


def options(*, shared: bool) -> list[tuple[str, int]]:
    """What clients may cost, and whether the port is shared."""
    return [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_concurrent_streams", 128),
        ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_S * 1000)),
        ("grpc.max_connection_idle_ms", int(IDLE_S * 1000)),
        ("grpc.max_connection_age_ms", int(AGE_S * 1000)),
        ("grpc.max_connection_age_grace_ms", int(AGE_GRACE_S * 1000)),
        ("grpc.max_allowed_incoming_connections", max_connections()),
        # A client that is gone without a word, or does not read, is noticed by pings without an answer.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Clients may ping each 10 s, also without calls, to keep a way through a firewall open. Others are cut off.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # By default a second server could take the same port, and would get half of the calls.
        ("grpc.so_reuseport", int(shared)),
    ]


def max_connections() -> int:
    """A quarter of the files that this process may open. HTTP has half of them, and the rest is for the broker, the
    cold tier and its own files."""
    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4, MAX_CONNECTIONS)


def _reflection(arrivals: Arrivals) -> grpc.GenericRpcHandler:
    """Tells any client which services and messages there are."""
    servicer = reflection.aio.ReflectionServicer((SERVICE, health.SERVICE, reflection.SERVICE_NAME))

    async def answer(_: object, context: Context) -> AsyncIterator[Any]:
        async for response in servicer.ServerReflectionInfo(arriving(context), context):
            yield response

    async def arriving(context: Context) -> AsyncIterator[Any]:
        with suppress(RetrieverError):
            while True:
                yield reflection_pb2.ServerReflectionRequest.FromString(await arrivals.read(context))

    method = grpc.stream_stream_rpc_method_handler(
        answer, response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString
    )
    return grpc.method_handlers_generic_handler(reflection.SERVICE_NAME, {"ServerReflectionInfo": method})


class _ApiKey(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Refuses all calls without the key but those of the health service."""

    def __init__(self, key: SecretStr) -> None:
        self._key = key
        # As a stream, so that nothing is read of a client that has no key.
        self._refusal = grpc.stream_unary_rpc_method_handler(_refuse_without_key)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        if handler_call_details.method.startswith(_HEALTH) or self._allows(handler_call_details.invocation_metadata):
            return await continuation(handler_call_details)
        return self._refusal

    def _allows(self, metadata: Any) -> bool:
        pairs = [(name, value.encode() if isinstance(value, str) else value) for name, value in metadata]
        authorization = next((value for name, value in pairs if name == "authorization"), b"")
        return is_allowed(self._key, authorization, [value for name, value in pairs if name in _KEYS])


async def _refuse_without_key(_: object, context: Context) -> bytes:
    await refuse(context, Trouble(ProblemCode.UNAUTHENTICATED, REFUSAL), trace_of_call(context))


def _credentials(settings: ServeSettings) -> grpc.ServerCredentials | None:
    """None without TLS. The two files are those of HTTPS, whose context was made of them before."""
    if settings.certificate_file is None or settings.private_key_file is None:
        return None
    return grpc.ssl_server_credentials(
        [(settings.private_key_file.read_bytes(), settings.certificate_file.read_bytes())]
    )


def _why(host: str, port: int, *, shared: bool) -> str:
    """gRPC does not say why it cannot have the port. The system says it to whoever tries the same."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
            attempt.bind(address)
            attempt.listen()
    except OSError as error:
        return f"{error.strerror}; choose another"
    return "try again"
