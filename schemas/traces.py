"""Traces: one for each event, from its arrival until it is searchable, with a span for each stage that it passes.

The header `traceparent` (W3C Trace Context) carries the trace from record to record, beside the origin. Nothing is
read, made or sent until `trace_with` was called, once for a process, as its log is set up; the library is loaded only
then. Knows no exporter.
"""

from typing import TYPE_CHECKING, Any, Final, Protocol

from schemas.headers import TRACEPARENT_HEADER, HasHeaders, headers_of

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

_NANOSECONDS: Final = 1_000_000
"""In a millisecond."""


class _Traced:
    tracer: "Tracer | None" = None


class ReadRecord(HasHeaders, Protocol):
    """A message of confluent-kafka that was read."""

    def topic(self) -> Any: ...

    def partition(self) -> Any: ...

    def offset(self) -> Any: ...

    def timestamp(self) -> Any: ...


def trace_with(tracer: "Tracer | None") -> None:
    """None: nothing is traced any more."""
    _Traced.tracer = tracer


def sent(stage: str) -> bytes | None:
    """Begins a trace with an event that is sent now. Returns the header for it."""
    return None if _Traced.tracer is None else _ended(_Traced.tracer.start_span(stage))


def passed(stage: str, record: ReadRecord, *, begins: bool = False) -> bytes | None:
    """The record has waited for this stage since it was written, and the stage has done it now. Returns the header for
    what follows from it. `begins`: a record without a trace begins one; otherwise it has none further on."""
    tracer = _Traced.tracer
    if tracer is None:
        return None
    header = _header(record)
    if header is None and not begins:
        return None
    context = None if header is None else _context(header)
    place = {"topic": record.topic(), "partition": record.partition(), "offset": record.offset()}
    span = tracer.start_span(stage, context, attributes=place, start_time=record.timestamp()[1] * _NANOSECONDS)
    return _ended(span)


def named(record: ReadRecord) -> dict[str, str]:
    """`trace_id` for a line of the log about this record; empty where nothing is traced."""
    header = None if _Traced.tracer is None else _header(record)
    if header is None:
        return {}
    from opentelemetry.trace import get_current_span

    context = get_current_span(_context(header)).get_span_context()
    return {"trace_id": f"{context.trace_id:032x}"} if context.is_valid else {}


def _header(record: HasHeaders) -> str | None:
    value = dict(headers_of(record)).get(TRACEPARENT_HEADER)
    return value.decode(errors="replace") if isinstance(value, bytes) else None


def _context(header: str) -> "Context":
    """Empty for a header that is none of W3C's."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({TRACEPARENT_HEADER: header})


def _ended(span: "Span") -> bytes:
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    span.end()
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, set_span_in_context(span))
    return carrier.get(TRACEPARENT_HEADER, "").encode()
