"""Dead letters as outputs of a transaction: the record as it came, with its cause, beside the effects of its batch."""

from typing import Final

import msgspec
from confluent_kafka import Message

from contexts.rows import Unplaced
from schemas import topics
from schemas.dead_letters import DeadLetterCause, Headers, to_headers
from schemas.events import Activity, event_key
from schemas.headers import headers_of
from schemas.times import EPOCH, MICROSECOND
from streams.kafka.clients import MAX_RECORD_BYTES
from streams.kafka.records import Output, offset_of, place_of

_STAGE: Final = "contexts"
LARGEST_BYTES: Final = MAX_RECORD_BYTES - 64 * 1024
"""Of a record in a letter: the cause comes on top, and the letter must fit wherever the record did. Compressed, a
record of any size may have come in."""
_KEPT_BYTES: Final = 1024 * 1024


def dead_letter_record(stage: str, record: Message, cause: str) -> Output:
    """A record that can never succeed. Its key, value and headers stay as they are, unless they do not fit."""
    key, value, own = record.key(), record.value(), headers_of(record)
    size = size_bytes(key, value, own)
    if size > LARGEST_BYTES:
        cause = f"{cause}; of its {size} bytes only the first {_KEPT_BYTES} of key and value are kept here"
        key, value, own = key and key[:_KEPT_BYTES], value and value[:_KEPT_BYTES], []
    headers = to_headers(DeadLetterCause(stage, *place_of(record), offset_of(record), cause))
    return _output(key, value, [*own, *headers])


def size_bytes(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """Of a record, at most."""
    return len(key or b"") + len(value or b"") + sum(len(name) * 4 + len(held or b"") for name, held in headers)


def unplaced_record(unplaced: Unplaced) -> Output:
    """An activity that waited in vain: the input event again, so that it can be replayed once its post is there. It
    was never counted."""
    activity = unplaced.activity
    event = Activity(
        member_id=activity.member_id,
        post_id=unplaced.post_id,
        action=activity.action,  # type: ignore[arg-type]  # what waits is never an erase or a refusal
        at=EPOCH + activity.at_us * MICROSECOND,
        dwell_ms=activity.dwell_ms,
    )
    cause = DeadLetterCause(_STAGE, topics.ACTIVITY, activity.partition, activity.offset, unplaced.cause)
    return _output(event_key(event).encode(), msgspec.json.encode(event), to_headers(cause))


def _output(key: bytes | None, value: bytes | None, headers: Headers) -> Output:
    return Output(topics.DEAD_LETTERS, key, value, headers)
