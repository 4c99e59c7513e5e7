"""What a stage plugs into the transactional loop: what it does with records, and what it does while there are none.

Plain protocols; the loop is in `transactional_loop.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from confluent_kafka import Message

from schemas.ids import Offset
from streams.kafka.records import Output, Place


class Processed(NamedTuple):
    """The outputs of the first `num_records` of the records that were passed to `process`, in the order in which they
    must be sent. `num_records` is at least 1."""

    outputs: list[Output]
    num_records: int


OffsetsToCommit = Callable[[Sequence[Message]], Mapping[Place, Offset]]
"""Takes the records of the batch that are not processed yet. Returns the offsets to commit now: those at which the
group would read these records next."""


class Processor(Protocol):
    """What a stage plugs in. The loop's thread makes every call, one at a time. Any exception ends the process, so a
    record that can never succeed must become an output to the dead letters instead."""

    def on_assigned(self, committed_offsets: Mapping[Place, Offset | None]) -> None:
        """This worker owns the partitions in `committed_offsets` from now on, and no others: a rebalance revokes
        everything first. Each offset is the one that the group has committed; None if it has committed none.
        May block while state is restored."""
        ...

    def on_revoked(self, places: Sequence[Place]) -> None:
        """This worker no longer owns these partitions. No record is being processed, and no transaction is open unless
        the process is about to end after an error."""
        ...

    def rewind(self, offsets: Mapping[Place, Offset]) -> list[Output]:
        """The broker has lost its newest records of these partitions. The partitions are read again from these offsets,
        even if the processor's own state says that later records were already processed. Returns the outputs of the
        transaction that commits the offsets. Called before any other work on these partitions."""
        ...

    def due_outputs(self, records: Sequence[Message]) -> list[Output] | None:
        """Does work that is due because time has passed, such as delayed publications. Returns the outputs of one
        transaction, or None if nothing is due. Called again until it returns None, and at least ten times a second when
        there is nothing else to do.

        `records` are those of the batch that are not processed yet (often none). They are passed because they may hold
        a request to do delayed work now (a flush record); `process` gets them after this transaction."""
        ...

    def process(self, records: Sequence[Message], offsets_to_commit: OffsetsToCommit) -> Processed:
        """Processes all the records, or only the first ones if all would be too much for one transaction. `records` is
        never empty and holds no error messages."""
        ...

    def on_committed(self, last_written: Mapping[Place, Offset]) -> None:
        """The transaction with the outputs that were returned last is committed. `last_written` has the offset of the
        last output in each partition of the loop's `reported_topics`. Called once for every list of outputs."""
        ...


class Background(Protocol):
    """Work that a stage does only while it has no records. What is to be done stands in a topic of its own, the
    requests, with as many partitions as the stage's topics. The worker that owns a partition of those has the requests
    of the same number too. The loop's thread makes every call, and an exception ends the process."""

    topic: str
    """The topic of the requests."""

    def batch_records(self) -> int:
        """How many requests one batch may have. A record that comes in meanwhile waits for this batch."""
        ...

    def process(
        self, requests: Sequence[Message], committed_offsets: Mapping[Place, Offset | None]
    ) -> Processed | None:
        """Processes all these requests or the first ones. None: not now; the same requests come again after a moment.
        `committed_offsets` has the partitions that this worker owns, with what the group has committed: all records
        before that are processed, and no later one."""
        ...

    def rest(self) -> None:
        """There is no request. Called again and again."""
        ...

    def close(self) -> None:
        """Called once, when the loop has ended."""
        ...
