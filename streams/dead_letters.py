"""Dead letters as outputs of a transaction: the record as it came, with its cause, beside the effects of its batch."""

from typing import Final

import msgspec
from confluent_kafka import Message

from contexts.rows import Unplaced
from schemas import topics
from schemas.dead_letters import DeadLetterCause, Headers, to_headers
from schemas.events import Activity, event_key
from schemas.times import EPOCH, MICROSECOND
from streams.records import Output, offset_of, place_of

_STAGE: Final = "contexts"


def dead_letter_record(stage: str, record: Message, cause: str) -> Output:
    """A record that can never succeed. Its key and value stay as they are."""
    headers = to_headers(DeadLetterCause(stage, *place_of(record), offset_of(record), cause))
    return _output(record.key(), record.value(), [*(record.headers() or []), *headers])


def unplaced_record(unplaced: Unplaced) -> Output:
    """An activity that waited in vain: the input event again, so that it can be replayed once its post is there. It
    was never counted."""
    activity = unplaced.activity
    event = Activity(
        member_id=activity.member_id,
        post_id=unplaced.post_id,
        action=activity.action,  # type: ignore[arg-type]  # what waits is never an erase
        at=EPOCH + activity.at_us * MICROSECOND,
        dwell_ms=activity.dwell_ms,
    )
    cause = DeadLetterCause(_STAGE, topics.ACTIVITY, activity.partition, activity.offset, unplaced.cause)
    return _output(event_key(event).encode(), msgspec.json.encode(event), to_headers(cause))


def _output(key: bytes | None, value: bytes | None, headers: Headers) -> Output:
    return Output(topics.DEAD_LETTERS, key, value, headers)
