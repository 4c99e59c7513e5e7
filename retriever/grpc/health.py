"""The standard health service of gRPC (`grpc.health.v1.Health`). It needs no API key, so anybody may ask it.

Unlike grpcio's own one it bounds who watches, and no lock is held while something is sent: with that one a watcher that
read nothing kept the health of all others from changing.
"""

import asyncio
from collections.abc import Collection
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2 as pb

from retriever.errors import RetrieverError
from retriever.grpc.arrivals import Arrivals
from retriever.grpc.calls import Context, refuse, trace_of_call
from retriever.service.problems import Trouble, trouble_of
from schemas.api import ProblemCode

SERVICE: Final = pb.DESCRIPTOR.services_by_name["Health"].full_name
MAX_WATCHERS: Final = 1000
"""Balancers and monitors, each once or twice. A call that stays open takes some 20 kB."""
_TOO_MANY: Final = "too many others watch the health; ask for it with Check"


class Health(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Belongs to one event loop. Says that nothing is served until it is told otherwise."""

    def __init__(self, services: Collection[str], arrivals: Arrivals) -> None:
        self._services = frozenset(services)
        self._arrivals = arrivals
        self._status = pb.HealthCheckResponse.NOT_SERVING
        self._changed = asyncio.Event()
        """Set when the status is not the one any more that it was when this event was made."""
        self._stopped = False
        self._num_watchers = 0
        self._handlers = {
            f"/{SERVICE}/Check": grpc.stream_unary_rpc_method_handler(self._check),
            f"/{SERVICE}/Watch": grpc.stream_stream_rpc_method_handler(self._watch),
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._handlers.get(handler_call_details.method)

    def tell(self, *, serving: bool) -> None:
        """Of all services."""
        status = pb.HealthCheckResponse.SERVING if serving else pb.HealthCheckResponse.NOT_SERVING
        if not self._stopped and status != self._status:
            self._status = status
            self._changed.set()
            self._changed = asyncio.Event()

    def stop(self) -> None:
        """From now on nothing is served any more."""
        self.tell(serving=False)
        self._stopped = True

    async def _check(self, _: object, context: Context) -> bytes:
        service = await self._read(context)
        if service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        return _encoded(self._status)

    async def _watch(self, _: object, context: Context) -> None:
        service = await self._read(context)
        if self._num_watchers >= MAX_WATCHERS:
            await refuse(context, Trouble(ProblemCode.BUSY, _TOO_MANY), trace_of_call(context))
        self._num_watchers += 1
        try:
            await self._send_changes(service, context)
        finally:
            self._num_watchers -= 1

    async def _send_changes(self, service: str, context: Context) -> None:
        """Never ends by itself."""
        sent = None
        while True:
            changed, status = self._changed, self._status
            if service not in self._services:
                status = pb.HealthCheckResponse.SERVICE_UNKNOWN
            if status != sent:
                await context.write(_encoded(status))
                sent = status
            await changed.wait()

    async def _read(self, context: Context) -> str:
        """The name of the service. Refuses the call if there is none."""
        try:
            return str(pb.HealthCheckRequest.FromString(await self._arrivals.read(context)).service)
        except DecodeError:
            trouble = Trouble(ProblemCode.BAD_BODY, "the body is no HealthCheckRequest")
        except RetrieverError as error:
            trouble = trouble_of(error)
        await refuse(context, trouble, trace_of_call(context))


def _encoded(status: Any) -> bytes:
    return bytes(pb.HealthCheckResponse(status=status).SerializeToString())
