"""The headers of a record, and the one that carries its origin along: read and written in one way.

Knows no client of Kafka but by two methods of its messages.
"""

from operator import methodcaller
from typing import Any, Final, Protocol

from schemas.dead_letters import Headers
from schemas.topics import ORIGIN_HEADER

UNREADABLE: Final = ("unreadable-headers", b"the name of one was no UTF-8")
"""Stands for all headers of a record where one has such a name."""


_ask: Final = methodcaller("headers")
"""Not `record.headers()`: the client then raises and returns a half made list, both. Python sees to that in a call
through C alone; its own quick way of calling takes the list."""


class Carrier(Protocol):
    """A record as confluent-kafka gives it."""

    def headers(self) -> Any: ...

    def set_headers(self, headers: Any) -> None: ...


def headers_of(record: Carrier) -> list[tuple[str, Any]]:
    """Values are bytes or None. Kafka takes names of any bytes; its client fails where one is no UTF-8."""
    try:
        found = _ask(record) or []
    except SystemError:
        # Asked again it would give the half made list, and whoever looks into that takes the process along.
        record.set_headers([UNREADABLE])
        return [UNREADABLE]
    return list(found.items() if isinstance(found, dict) else found)


def origin_ms(record: Carrier) -> int | None:
    """None where the record carries none, or something that is no number of Kafka's."""
    found = dict(headers_of(record)).get(ORIGIN_HEADER)
    return int(found) if isinstance(found, bytes) and found.isdigit() and len(found) < 20 else None


def with_origin(origin_ms: int | None) -> Headers | None:
    return None if origin_ms is None else [(ORIGIN_HEADER, b"%d" % origin_ms)]
