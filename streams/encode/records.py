"""The processor of the encode stage's transactional loops: all records of a batch are encoded.

It also says which loops have records, because while one has any, nothing is encoded again.
"""

from collections.abc import Mapping, Sequence

from confluent_kafka import Message

from schemas.ids import Offset
from streams.encode.context_records import ContextRecords
from streams.encode.live_first import LiveFirst
from streams.kafka.processor import OffsetsToCommit, Processed
from streams.kafka.records import Output, Place


class EncodeRecords:
    """The loop's thread owns it."""

    def __init__(self, loop: str, contexts: ContextRecords, live_first: LiveFirst) -> None:
        """`loop` is the name of the loop."""
        self._loop = loop
        self._contexts = contexts
        self._live_first = live_first

    def on_assigned(self, committed_offsets: Mapping[Place, Offset | None]) -> None:
        """There is no state to restore."""

    def on_revoked(self, places: Sequence[Place]) -> None:
        """There is no state to close."""

    def rewind(self, offsets: Mapping[Place, Offset]) -> list[Output]:
        """There is no state that counts how far it has read."""
        return []

    def due_outputs(self, records: Sequence[Message]) -> list[Output] | None:
        """Nothing is ever due without a record."""
        self._live_first.report(self._loop, has_records=bool(records))
        return None

    def on_committed(self, last_written: Mapping[Place, Offset]) -> None:
        """There is no local state to write."""

    def process(self, records: Sequence[Message], offsets_to_commit: OffsetsToCommit) -> Processed:
        """Raises Stopped between two turns. Then nothing of the batch is committed, and the next owner of the
        partitions encodes it."""
        return Processed(self._contexts.encode(records), len(records))
