"""Reads the headers of a record, and reads and writes the header that carries its origin.

Knows of the Kafka client only two methods of its messages.
"""

from operator import methodcaller
from typing import Any, Final, NamedTuple, Protocol

from schemas.dead_letters import Headers
from schemas.topics import ORIGIN_HEADER

TRACEPARENT_HEADER: Final = "traceparent"
"""The trace of an event on its way, as W3C Trace Context has it: `schemas/traces.py`."""
UNREADABLE: Final = ("unreadable-headers", b"the name of one was no UTF-8")
"""Replaces all headers of a record if one of them has a name that is not UTF-8."""

_call_headers: Final = methodcaller("headers")
"""Calls `record.headers()` from C. For a header name that is not UTF-8, confluent-kafka sets an exception and still
returns a half-built list. A call from C reports that as a SystemError; Python's own fast call would take the list."""


class Origin(NamedTuple):
    """Where a record comes from: the Kafka timestamp of the event that it goes back to, and the event's trace."""

    ms: int
    traceparent: bytes | None = None


def older(first: Origin | None, second: Origin | None) -> Origin | None:
    """Of what goes back to several events the oldest counts. None is no event."""
    if first is None or second is None:
        return second if first is None else first
    return first if first.ms <= second.ms else second


class HasHeaders(Protocol):
    """A message of confluent-kafka."""

    def headers(self) -> Any: ...

    def set_headers(self, headers: Any) -> None: ...


def headers_of(record: HasHeaders) -> list[tuple[str, Any]]:
    """Values are bytes or None. Kafka allows names of any bytes, but its client can only read UTF-8."""
    try:
        headers = _call_headers(record) or []
    except SystemError:
        # A second call would return the half-built list, and reading that crashes the process.
        record.set_headers([UNREADABLE])
        return [UNREADABLE]
    return list(headers.items() if isinstance(headers, dict) else headers)


def read_origin_ms(record: HasHeaders) -> int | None:
    """None if the record has no such header, or if its value is not a number that Kafka could have written."""
    value = dict(headers_of(record)).get(ORIGIN_HEADER)
    return int(value) if isinstance(value, bytes) and value.isdigit() and len(value) < 20 else None


def with_origin(origin: Origin | None) -> Headers | None:
    if origin is None:
        return None
    headers = [(ORIGIN_HEADER, b"%d" % origin.ms)]
    return headers if origin.traceparent is None else [*headers, (TRACEPARENT_HEADER, origin.traceparent)]
