"""Requests to process records again, as the stages take them: which of them belong into one batch, and the records that
they name.

Knows no stage's work. `nearline replay` writes the requests (`streams/operate/replay.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from confluent_kafka import Message

from schemas.errors import BadRecord
from schemas.ids import Offset
from schemas.replays import decode_request
from streams.kafka.lookup import JUMP, RecordLookup
from streams.kafka.records import Place, place_of

_MOST_READ: Final = 20_000
"""Records that are read for one batch, at most: a few tenths of a second. New records wait for it."""

Keys = dict[Offset, bytes | None]
"""The offsets of the records that are asked for in one partition, with their keys."""


class ReplayBatch(NamedTuple):
    requests: Sequence[Message]
    """Those of the first requests that belong together."""
    keys: dict[Place, Keys]
    ends: dict[Place, Offset]
    """For each partition of records: every record in `keys` was the newest of its key before this offset."""
    dead: list[tuple[Message, str]]
    """Requests that cannot be read, each with the cause."""


def take_batch(requests: Sequence[Message], record_topics: Mapping[str, str]) -> ReplayBatch:
    """Takes the first requests, at least one: as many as name records that can be read in a short time, and that agree
    on the end in each partition. `record_topics` gives for each topic of requests the topic of the records."""
    batch = ReplayBatch([], {}, {}, [])
    last: dict[Place, Offset] = {}
    num_read = 0
    for number, message in enumerate(requests):
        topic, partition = place_of(message)
        place = Place(record_topics[topic], partition)
        try:
            request = decode_request(message.value())
        except BadRecord as error:
            batch.dead.append((message, str(error)))
            continue
        offset, end = request.offset, request.end
        distance = offset - last.get(place, Offset(-JUMP))
        num_read += distance if 0 <= distance < JUMP else JUMP
        if number and (num_read > _MOST_READ or batch.ends.get(place, end) != end):
            return batch._replace(requests=requests[:number])
        batch.keys.setdefault(place, {})[offset] = message.key()
        batch.ends[place], last[place] = end, offset
    return batch._replace(requests=requests)


def find_records(lookup: RecordLookup, place: Place, keys: Keys) -> Iterator[Message]:
    """The records that compaction has not removed, in the order of their offsets. Raises StreamsError."""
    for record in lookup.records(place, keys):
        if record.key() == keys[Offset(record.offset() or 0)]:
            yield record
