"""The consume-process-produce loop in Kafka transactions, shared by the context stage and the encode stage.

Owns the consumer, the producer, the order of effects and which offsets are committed. What a record means is the
processor's business. Every error leaves `run` and ends the process. These stages wait out an outage by being started
again: what was not committed has left no trace.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from schemas.ids import Offset, Partition
from streams.errors import KafkaUnavailable, StreamsError
from streams.kafka.clients import new_consumer, new_producer
from streams.kafka.crash_points import point
from streams.kafka.deleted_unread import parse_committed, to_commit
from streams.kafka.heartbeat import NO_HEARTBEAT, Heartbeat
from streams.kafka.kafka_errors import kafka_errors, log_refused_login, translate
from streams.kafka.records import Output, Place, offset_of, place_of
from streams.kafka.resume_points import NO_RESET, find_resume_points, rewinds
from streams.kafka.sending import produce
from streams.settings import KafkaSettings

_IDLE_S: Final = 0.1
"""How long to wait for the first record of a batch. Due work is looked for after every wait."""
_LINGER_S: Final = 0.01
"""Records that arrive within this time of each other share a batch, even when the next batch is already due."""
_CALL_S: Final = 30.0
TRANSACTION_MS: Final = 15_000
"""If a worker dies within a transaction and is not started again, readers wait for this time and for the broker's next
check for expired transactions."""

log = structlog.get_logger(__name__)


class Processed(NamedTuple):
    """The outputs of the first `num_records` records, in the order in which they are to be sent. At least one record is
    processed."""

    outputs: list[Output]
    num_records: int


OffsetsBefore = Callable[[Sequence[Message]], Mapping[Place, Offset]]
"""Takes the records that are left for the next transaction. Gives the offsets that the current one commits."""


class Processor(Protocol):
    """What a stage plugs in. The loop's thread makes every call, one at a time. Any exception ends the process, so a
    record that can never succeed must become an output to the dead letters instead."""

    def assigned(self, committed: Mapping[Place, Offset | None]) -> None:
        """This worker owns these partitions from now on, and no others: a rebalance revokes everything first.
        `committed` has the offset that the group has committed in each of them; None if there is none.
        May block while state is restored."""
        ...

    def revoked(self, places: Sequence[Place]) -> None:
        """This worker no longer owns these partitions. No transaction is open, and no record is being processed."""
        ...

    def rewind(self, offsets: Mapping[Place, Offset]) -> list[Output]:
        """The broker has lost its newest records of these partitions. They are read again from these offsets, even
        where the state counts further. Returns the outputs of the transaction that commits the offsets. Called before
        any other work on these partitions."""
        ...

    def due_outputs(self, records: Sequence[Message]) -> list[Output] | None:
        """Work that is due without a record, such as delayed publications. Returns the outputs of one transaction,
        which is committed before `records`, the next batch (often empty), are processed. Called again until it returns
        None, and at least ten times a second when there is nothing else to do."""
        ...

    def process(self, records: Sequence[Message], offsets_before: OffsetsBefore) -> Processed:
        """One transaction: of all the records, or of the first ones if all would be too much for one. `records` is
        never empty and holds no error messages."""
        ...

    def committed(self, delivered: Mapping[Place, Offset]) -> None:
        """The transaction with the outputs that were returned last is committed. `delivered` has the offset of the last
        record in each partition of the tracked topics. Called once for every list of outputs."""
        ...


class TransactionalLoop:
    """One worker. Its `transactional_id` is made of stage, node and slot: a worker that is started again has the same
    one, and so ends the transaction that its predecessor left open."""

    def __init__(
        self,
        kafka: KafkaSettings,
        processor: Processor,
        *,
        group: str,
        topics: Sequence[str],
        transactional_id: str,
        batch_records: Callable[[], int],
        interval_s: float,
        tracked: frozenset[str] = frozenset(),
        heartbeat: Heartbeat = NO_HEARTBEAT,
    ) -> None:
        """`batch_records` is asked before each batch how many records it may have. Batches that are not full begin at
        least `interval_s` apart, because a transaction costs the broker as much for one record as for a thousand.
        Outputs to `tracked` topics must name their partition. `heartbeat` belongs to this loop alone."""
        self._kafka = kafka
        self._processor = processor
        self._group = group
        self._topics = list(topics)
        self._transactional_id = transactional_id
        self._batch_records = batch_records
        self._interval_s = interval_s
        self._last_batch_at = 0.0
        self._tracked = tracked
        self._heartbeat = heartbeat
        self._batch: list[Message] = []
        self._committed: dict[Place, Offset | None] = {}
        self._deleted: dict[Place, int] = {}
        self._rewound: dict[Place, Offset] = {}
        self._delivered: dict[Place, Offset] = {}

    def run(self, stop: threading.Event) -> None:
        """Returns soon after `stop` is set. By then the last batch is committed and the partitions are given back."""
        self._heartbeat.start()
        with kafka_errors():
            self._producer = self._new_producer()
            self._consumer = self._new_consumer()
            try:
                while not stop.is_set():
                    self._run_batch()
            except BaseException:
                self._close_at_once()
                raise
            self._consumer.close()

    def _new_producer(self) -> Producer:
        self._brokers_were_down = False
        overrides = {
            "error_cb": self._on_error,
            "transactional.id": self._transactional_id,
            "transaction.timeout.ms": TRANSACTION_MS,
            "queue.buffering.max.messages": 500_000,
        }
        producer = new_producer(self._kafka, **overrides)
        # Ends the transaction that a predecessor with the same id left open, and fences that predecessor.
        producer.init_transactions(_CALL_S)
        return producer

    def _new_consumer(self) -> Consumer:
        # The range assignor keeps equal partition numbers of all topics together.
        overrides = {"partition.assignment.strategy": "range", **NO_RESET}
        consumer = new_consumer(self._kafka, self._group, **overrides)
        consumer.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke)
        return consumer

    def _run_batch(self) -> None:
        self._heartbeat.turn()
        records = self._read_batch()
        if self._rewound:
            self._run_transaction(self._processor.rewind(self._rewound), self._rewound)
            self._rewound = {}
        self._run_due_work(records)
        if not records and (offsets := self._offsets_before(())):
            # Only control records were read. Committing past them brings the lag down to zero.
            self._commit_offsets(offsets)
        while records:
            outputs, num_records = self._processor.process(records, self._offsets_before)
            records = records[num_records:]
            self._run_transaction(outputs, self._offsets_before(records))
            if records:
                self._run_due_work(records)

    def _run_due_work(self, records: Sequence[Message]) -> None:
        while (outputs := self._processor.due_outputs(records)) is not None:
            self._run_transaction(outputs, {})

    def _read_batch(self) -> list[Message]:
        """Waits `_IDLE_S` for the first record, then for more until the next batch may begin."""
        self._batch = []
        self._consume(1, _IDLE_S)
        max_records = self._batch_records()
        if self._batch and max_records > 1:
            next_batch_in_s = self._last_batch_at + self._interval_s - time.monotonic()
            self._consume(max_records - 1, max(_LINGER_S, next_batch_in_s))
        if self._batch:
            self._last_batch_at = time.monotonic()
        return self._batch

    def _consume(self, num_records: int, timeout_s: float) -> None:
        # `consume` may call `_on_revoke`, which removes records from the batch. So the batch is extended afterwards.
        messages = self._consumer.consume(num_records, timeout_s)
        for message in messages:
            error = message.error()
            if error is not None:
                raise translate(error)
        self._batch += messages

    def _offsets_before(self, remaining: Sequence[Message]) -> dict[Place, Offset]:
        """Offsets to commit if all but the `remaining` records are done: only of partitions where they have changed.
        Asks the consumer, whose position also counts control records; the last record plus one does not."""
        partitions = self._consumer.position([TopicPartition(*place) for place in self._committed])
        offsets = {place: Offset(at.offset) for place, at in zip(self._committed, partitions, strict=True)}
        offsets |= {place_of(record): offset_of(record) for record in reversed(remaining)}
        return {place: offset for place, offset in offsets.items() if offset >= 0 and offset != self._committed[place]}

    def _run_transaction(self, outputs: list[Output], offsets: Mapping[Place, Offset]) -> None:
        """The order of effects. So far the batch was applied in memory only."""
        # 1. Begin.
        self._heartbeat.beat()
        self._begin()
        point("transaction.begun")
        # 2. Send the outputs of the batch.
        self._send(outputs)
        point("transaction.outputs-sent")
        # 3. Send the offsets. They carry the group's metadata, which fences a zombie. So some are always sent.
        self._send_offsets(offsets or self._committed_offsets())
        point("transaction.offsets-sent")
        # 4. Commit.
        self._producer.commit_transaction(_CALL_S)
        self._committed.update(offsets)
        point("transaction.committed")
        # 5. Only now may the processor write anything to its local state.
        self._processor.committed(self._delivered)
        point("transaction.rows-written")

    def _begin(self) -> None:
        """Makes a new producer if the old one has lost all brokers: its `send_offsets_to_transaction` may never return,
        whatever its timeout (librdkafka issue 5511)."""
        self._producer.poll(0)
        if self._brokers_were_down:
            self._producer = self._new_producer()
        self._producer.begin_transaction()

    def _on_error(self, error: KafkaError) -> None:
        log_refused_login(error)
        self._brokers_were_down |= error.code() == KafkaError._ALL_BROKERS_DOWN

    def _commit_offsets(self, offsets: Mapping[Place, Offset]) -> None:
        """A transaction without outputs."""
        self._begin()
        self._send_offsets(offsets)
        self._producer.commit_transaction(_CALL_S)
        self._committed.update(offsets)

    def _committed_offsets(self) -> dict[Place, Offset]:
        return {place: offset for place, offset in self._committed.items() if offset is not None}

    def _send_offsets(self, offsets: Mapping[Place, Offset]) -> None:
        partitions = [to_commit(place, offset, self._deleted.get(place, 0)) for place, offset in offsets.items()]
        self._producer.send_offsets_to_transaction(partitions, self._consumer.consumer_group_metadata(), _CALL_S)

    def _send(self, outputs: Sequence[Output]) -> None:
        """Asks for a delivery report only for the last output to each tracked partition. One producer writes a
        partition in order, and an output that cannot be delivered fails the commit, so nothing is missed."""
        self._delivered = {}
        last_by_partition = {
            (output.topic, output.partition): number
            for number, output in enumerate(outputs)
            if output.topic in self._tracked
        }
        reported = set(last_by_partition.values())
        for number, output in enumerate(outputs):
            produce(self._producer, output, on_delivery=self._on_delivery if number in reported else None)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._delivered[place_of(message)] = offset_of(message)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        committed = parse_committed(self._fetch_committed(consumer, partitions))
        resume_points = find_resume_points(self._kafka, self._group, committed, _CALL_S)
        self._committed = {place: resume.committed for place, resume in resume_points.items()}
        self._deleted = {place: resume.deleted for place, resume in resume_points.items()}
        self._rewound = rewinds(resume_points)
        log.info("assigned", group=self._group, num_partitions=len(partitions))
        self._heartbeat.owns(self._committed)
        self._processor.assigned(self._committed)
        consumer.assign([TopicPartition(*place, resume.read_from) for place, resume in resume_points.items()])

    def _fetch_committed(self, consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Waits until no transaction with offsets of the group is open, so that the last commit of the worker that
        owned the partitions before is seen."""
        try:
            return consumer.committed(partitions, timeout=_CALL_S)
        except KafkaException as error:
            raise KafkaUnavailable(
                f"the broker did not give the offsets of the group {self._group} within {_CALL_S:.0f} s: "
                f"{translate(error)}; if the broker is there, a transaction was never ended: "
                "kafka-transactions.sh find-hanging names it, and abort ends it"
            ) from error

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        """Also called for partitions that were lost. Their new owner reads the records that were not processed."""
        revoked = {Place(at.topic, Partition(at.partition)) for at in partitions}
        self._batch = [record for record in self._batch if (record.topic(), record.partition()) not in revoked]
        for place in revoked:
            self._committed.pop(place, None)
            self._rewound.pop(place, None)
        log.info("revoked", group=self._group, num_partitions=len(revoked))
        self._heartbeat.owns(self._committed)
        self._processor.revoked(list(revoked))

    def _close_at_once(self) -> None:
        """The process is about to end: gives the partitions back without waiting for anything."""
        with suppress(KafkaException, RuntimeError, StreamsError):
            self._producer.purge()
            self._consumer.close()
