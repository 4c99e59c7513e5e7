"""Makes dead letters: the record as it came, with its cause in its headers.

The stages send them as outputs, in one transaction with the effects of the batch. Knows no producer.
"""

from typing import TYPE_CHECKING, Final

import msgspec

from contexts.rows import GivenUpAction
from schemas import topics
from schemas.dead_letters import DeadLetterCause, DeadLetterKind, Headers, to_headers
from schemas.events import Activity, event_key
from schemas.headers import headers_of
from schemas.times import EPOCH, MICROSECOND
from streams.kafka.records import MAX_RECORD_BYTES, Output, offset_of, place_of

if TYPE_CHECKING:
    from confluent_kafka import Message

_STAGE: Final = "contexts"
LARGEST_BYTES: Final = MAX_RECORD_BYTES - 64 * 1024
"""The largest record that is kept whole in a dead letter; the rest is room for the cause. A larger record may come in,
because the broker's limit is on compressed batches."""
_KEPT_BYTES: Final = 1024 * 1024


def dead_letter_record(stage: str, record: "Message", cause: str, kind: DeadLetterKind = "bad_record") -> Output:
    """The dead letter of a record that can never succeed. Keeps key, value and headers as they are if they fit."""
    key, value, record_headers = record.key(), record.value(), headers_of(record)
    size = size_bytes(key, value, record_headers)
    if size > LARGEST_BYTES:
        cause = f"{cause}; of its {size} bytes only the first {_KEPT_BYTES} of key and value are kept here"
        key, value, record_headers = key and key[:_KEPT_BYTES], value and value[:_KEPT_BYTES], []
    cause_headers = to_headers(DeadLetterCause(stage, *place_of(record), offset_of(record), cause), kind)
    return Output(topics.DEAD_LETTERS, key, value, [*record_headers, *cause_headers])


def size_bytes(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """The size of a record, at most: a character of a header's name takes up to four bytes."""
    header_bytes = sum(len(name) * 4 + len(content or b"") for name, content in headers)
    return len(key or b"") + len(value or b"") + header_bytes


def given_up_action_record(given_up: GivenUpAction) -> Output:
    """The dead letter of an action whose post never came. It holds the input event again, so that it can be replayed
    once the post is there. The action was never counted."""
    activity = given_up.activity
    event = Activity(
        member_id=activity.member_id,
        post_id=given_up.post_id,
        action=activity.action,  # type: ignore[arg-type]  # `erase` and `refuse` never wait
        at=EPOCH + activity.at_us * MICROSECOND,
        dwell_ms=activity.dwell_ms,
    )
    cause = DeadLetterCause(_STAGE, topics.ACTIVITY, activity.partition, activity.offset, given_up.cause)
    return Output(
        topics.DEAD_LETTERS, event_key(event).encode(), msgspec.json.encode(event), to_headers(cause, "post_missing")
    )
