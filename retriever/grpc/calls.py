"""The calls of `nearline.v1.Retriever`: each reads its message, asks the service, and writes the answer or an error."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn

import grpc

from retriever import nearline_pb2 as pb
from retriever.errors import RetrieverBusy
from retriever.grpc.arrivals import Arrivals
from retriever.grpc.messages import read, write_answer, write_answers, write_status, write_vectors
from retriever.service.problems import Trouble, trouble_of
from retriever.service.service import Service
from retriever.service.trace import Trace, trace_of
from schemas.api import (
    ProblemCode,
    RetrieveBatchRequest,
    RetrieveRequest,
    SimilarRequest,
    StatusResponse,
    VectorsRequest,
)

SERVICE: Final = pb.DESCRIPTOR.services_by_name["Retriever"].full_name
CODE: Final = "nearline-code"
RETRY_AFTER: Final = "retry-after-ms"
STATUSES: Final[dict[ProblemCode, grpc.StatusCode]] = {
    ProblemCode.BAD_FIELD: grpc.StatusCode.INVALID_ARGUMENT,
    ProblemCode.BAD_BODY: grpc.StatusCode.INVALID_ARGUMENT,
    ProblemCode.TOO_SLOW: grpc.StatusCode.DEADLINE_EXCEEDED,
    ProblemCode.UNKNOWN_GENERATION: grpc.StatusCode.NOT_FOUND,
    ProblemCode.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ProblemCode.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    ProblemCode.BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ProblemCode.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    ProblemCode.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    ProblemCode.INTERNAL: grpc.StatusCode.INTERNAL,
}
STATUS_CALLS: Final = 4
"""Status waits up to seconds for the broker and for other processes, in a thread of its own."""

Context = Any
"""A grpc.aio.ServicerContext. grpcio has no types."""
Call = Callable[[bytes, float | None], Awaitable[bytes]]
"""Takes the body, and the seconds within which the caller wants the answer."""
Handler = Callable[[object, Context], Awaitable[bytes]]


class Calls(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Bodies come and go as bytes: they are read and written here, not by grpcio in the event loop.

    To grpcio the requests are streams, of which one message is read. On the wire that is the same. But it lets us
    refuse a call before its message has arrived, and bound how messages arrive."""

    def __init__(self, service: Service, status: Callable[[], StatusResponse], arrivals: Arrivals) -> None:
        self._service = service
        self._status = status
        self._arrivals = arrivals
        self._num_status_calls = 0
        handlers = {
            "Retrieve": self._question(self._retrieve),
            "RetrieveBatch": self._question(self._retrieve_batch),
            "Similar": self._question(self._similar),
            "Vectors": self._question(self._vectors),
            "Status": self._handler(self._whole_status),
        }
        self._handlers = {
            f"/{SERVICE}/{name}": grpc.stream_unary_rpc_method_handler(handler) for name, handler in handlers.items()
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """None: there is no such call."""
        return self._handlers.get(handler_call_details.method)

    def _question(self, call: Call) -> Handler:
        """Of a call that waits for its turn. In an overload it is refused unread, which costs a third of the time."""
        handle = self._handler(call)

        async def handle_if_room(unread: object, context: Context) -> bytes:
            try:
                self._service.check_room(context.time_remaining())
            except RetrieverBusy as error:
                await refuse(context, trouble_of(error), trace_of_call(context))
            return await handle(unread, context)

        return handle_if_room

    def _handler(self, call: Call) -> Handler:
        async def handle(_: object, context: Context) -> bytes:
            trace = trace_of_call(context)
            trace.bind()
            context.set_trailing_metadata(trace.pairs())
            try:
                body = await self._arrivals.read(context)
                return await call(body, context.time_remaining())
            except Exception as error:
                trouble = trouble_of(error)
            await refuse(context, trouble, trace)

        return handle

    async def _retrieve(self, body: bytes, within_s: float | None) -> bytes:
        request = read(pb.RetrieveRequest, RetrieveRequest, body)
        return await self._service.retrieve(request, write_answer, within_s)

    async def _retrieve_batch(self, body: bytes, within_s: float | None) -> bytes:
        request = read(pb.RetrieveBatchRequest, RetrieveBatchRequest, body)
        return await self._service.retrieve_batch(request, write_answers, within_s)

    async def _similar(self, body: bytes, within_s: float | None) -> bytes:
        request = read(pb.SimilarRequest, SimilarRequest, body)
        return await self._service.similar(request, write_answer, within_s)

    async def _vectors(self, body: bytes, within_s: float | None) -> bytes:
        request = read(pb.VectorsRequest, VectorsRequest, body)
        return await self._service.vectors(request, write_vectors, within_s)

    async def _whole_status(self, _: bytes, __: float | None) -> bytes:
        if self._num_status_calls == STATUS_CALLS:
            raise RetrieverBusy("others ask for the status already; try again", code=ProblemCode.BUSY, retry_after_s=1)
        self._num_status_calls += 1
        reading = asyncio.create_task(asyncio.to_thread(self._status))
        reading.add_done_callback(self._status_read)
        # Reading goes on if the client hangs up, and until it ends it counts.
        return write_status(await asyncio.shield(reading))

    def _status_read(self, reading: "asyncio.Task[StatusResponse]") -> None:
        self._num_status_calls -= 1
        if not reading.cancelled():
            reading.exception()  # nobody else may look at it


async def refuse(context: Context, trouble: Trouble, trace: Trace) -> NoReturn:
    """Raises AbortError when the refusal is sent, and CancelledError if the client has gone: grpc ends a call that was
    cancelled without a word, but would log its own error with a traceback."""
    trailing = [*trace.pairs(), (CODE, trouble.code)]
    if trouble.retry_after_s is not None:
        trailing.append((RETRY_AFTER, str(math.ceil(trouble.retry_after_s * 1000))))
    try:
        await context.abort(STATUSES[trouble.code], trouble.sentence, tuple(trailing))
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None
    raise AssertionError("abort raises")


def trace_of_call(context: Context) -> Trace:
    return trace_of(dict(context.invocation_metadata() or ()).get)
