"""The header that carries the origin of a record along: read and written in one way."""

from confluent_kafka import Message

from schemas.dead_letters import Headers
from schemas.topics import ORIGIN_HEADER


def origin_ms(message: Message) -> int | None:
    """None where the record carries none, or something that is no number."""
    headers = message.headers()
    found = dict(headers).get(ORIGIN_HEADER) if headers else None
    return int(found) if isinstance(found, bytes) and found.isdigit() else None


def with_origin(origin_ms: int | None) -> Headers | None:
    return None if origin_ms is None else [(ORIGIN_HEADER, b"%d" % origin_ms)]
