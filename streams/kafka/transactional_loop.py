"""The consume-process-produce loop in Kafka transactions, shared by the context stage and the encode stage.

Owns the consumer, the producer, the order of effects and which offsets are committed. What becomes of a record is the
processor's business. Any error leaves `run`, and the process with it: being started again is how these stages wait out
an outage, and nothing that was not committed has left a trace.
"""

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from schemas.ids import Offset, Partition
from streams.errors import KafkaUnavailable, StreamsError
from streams.kafka.clients import consumer_config, kafka_errors, producer_config, say_refused, translate
from streams.kafka.crash_points import point
from streams.kafka.heartbeat import NO_PULSE, Pulse
from streams.kafka.records import Output, Place, offset_of, place_of
from streams.kafka.starts import NO_RESET, find_starts, set_back
from streams.kafka.unread import read_committed, to_commit
from streams.settings import KafkaSettings

_IDLE_S: Final = 0.1
"""How long a turn waits for a first record. Timers are looked at once a turn."""
_TOGETHER_S: Final = 0.01
"""Records that are this close are taken together in any case."""
_CALL_S: Final = 30.0
TRANSACTION_MS: Final = 15_000
"""Readers wait this long, and the broker's check, for a worker that died within a transaction and never came back."""

log = structlog.get_logger(__name__)


class Processed(NamedTuple):
    """The outputs of the first `num_records` records, at least one, in the order in which they are to be sent."""

    outputs: list[Output]
    num_records: int


Positions = Callable[[Sequence[Message]], Mapping[Place, Offset]]
"""The offsets that are committed with a transaction, by the records that are left for the next one."""


class Processor(Protocol):
    """What a stage plugs in. Everything is called from the loop's thread, one call at a time. Whatever it raises ends
    the process; a record that can never succeed must become an output to the dead letters."""

    def assigned(self, positions: Mapping[Place, Offset | None]) -> None:
        """These partitions are ours from now on, and start at these offsets; None: nothing was ever committed.
        May block while state is restored. Nothing was assigned before: a rebalance revokes everything first."""
        ...

    def revoked(self, places: Sequence[Place]) -> None:
        """These partitions are no longer ours. No transaction is open, and none of their records is in process."""
        ...

    def set_back(self, positions: Mapping[Place, Offset]) -> list[Output]:
        """The broker has lost its newest records of these partitions: they are read from these offsets again, whatever
        was counted. The outputs of the transaction that commits so. Called before any other work on them."""
        ...

    def ahead(self, records: Sequence[Message]) -> list[Output] | None:
        """Work that is due without a record, such as put off publications: the outputs of one transaction that is
        committed before `records`, the next batch (often empty), are processed. Asked again until it says None.
        Called at least ten times a second when there is nothing else to do."""
        ...

    def process(self, records: Sequence[Message], positions: Positions) -> Processed:
        """One transaction: of all the records, or of the first ones where all would be too much for one. `records` has
        no error messages in it and is never empty."""
        ...

    def committed(self, delivered: Mapping[Place, Offset]) -> None:
        """The transaction of the outputs that were given last is committed. `delivered` has the last offset of each
        partition of the tracked topics that it wrote to. Called once for every list of outputs."""
        ...


def node_id(data_dir: Path) -> str:
    """Names this machine's data folder for good: made once, kept in the folder."""
    file = data_dir / "node-id"
    with suppress(FileExistsError):
        data_dir.mkdir(parents=True, exist_ok=True)
        temporary = data_dir / f"node-id.{uuid.uuid4().hex}"
        temporary.write_text(uuid.uuid4().hex[:12])
        try:
            # A link, so that of two that make one at once the first wins and nobody sees half of it.
            file.hardlink_to(temporary)
        finally:
            temporary.unlink()
    return file.read_text()


class TransactionalLoop:
    """One worker. `transactional_id` is stage, node and slot, so that a worker that is started again ends the
    transaction that its predecessor left open."""

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
        pulse: Pulse = NO_PULSE,
    ) -> None:
        """`batch_records` says before each batch how many records it may have. Batches that are not full begin at least
        `interval_s` apart: a transaction costs the broker as much for one record as for a thousand. `tracked` topics
        are only written to explicit partitions. `pulse` is this loop's own."""
        self._kafka = kafka
        self._processor = processor
        self._group = group
        self._topics = list(topics)
        self._transactional_id = transactional_id
        self._batch_records = batch_records
        self._interval_s = interval_s
        self._last_batch_at = 0.0
        self._tracked = tracked
        self._pulse = pulse
        self._batch: list[Message] = []
        self._committed: dict[Place, Offset | None] = {}
        self._deleted: dict[Place, int] = {}
        self._set_back: dict[Place, Offset] = {}
        self._delivered: dict[Place, Offset] = {}

    def run(self, stop: threading.Event) -> None:
        """Returns soon after `stop` is set, with the last batch committed and the partitions handed back."""
        self._pulse.start()
        with kafka_errors():
            self._producer = self._new_producer()
            self._consumer = self._new_consumer()
            try:
                while not stop.is_set():
                    self._turn()
            except BaseException:
                self._abandon()
                raise
            self._consumer.close()

    def _new_producer(self) -> Producer:
        self._was_down = False
        own = {
            "error_cb": self._on_error,
            "transactional.id": self._transactional_id,
            "transaction.timeout.ms": TRANSACTION_MS,
            "queue.buffering.max.messages": 500_000,
        }
        producer = Producer(producer_config(self._kafka, **own))
        # Ends what a predecessor of the same id left open, and fences it.
        producer.init_transactions(_CALL_S)
        return producer

    def _new_consumer(self) -> Consumer:
        # Range keeps equal partition numbers of all topics together.
        own = {"partition.assignment.strategy": "range", **NO_RESET}
        consumer = Consumer(consumer_config(self._kafka, self._group, **own))
        consumer.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke)
        return consumer

    def _turn(self) -> None:
        self._pulse.turn()
        records = self._collect()
        if self._set_back:
            self._transact(self._processor.set_back(self._set_back), self._set_back)
            self._set_back = {}
        self._ahead(records)
        if not records and (moved := self._moved(())):
            # Only control records: no reader is behind, and so no lag should be shown.
            self._commit_offsets(moved)
        while records:
            outputs, num_records = self._processor.process(records, self._moved)
            records = records[num_records:]
            self._transact(outputs, self._moved(records))
            if records:
                self._ahead(records)

    def _ahead(self, records: Sequence[Message]) -> None:
        while (outputs := self._processor.ahead(records)) is not None:
            self._transact(outputs, {})

    def _collect(self) -> list[Message]:
        """One batch: waits a while for the first record, and for more while it is too early for another batch."""
        self._batch = []
        self._consume(1, _IDLE_S)
        most = self._batch_records()
        if self._batch and most > 1:
            self._consume(most - 1, max(_TOGETHER_S, self._last_batch_at + self._interval_s - time.monotonic()))
        if self._batch:
            self._last_batch_at = time.monotonic()
        return self._batch

    def _consume(self, num_records: int, timeout_s: float) -> None:
        # A rebalance happens inside this call and takes lost records out of the batch, so it is extended afterwards.
        messages = self._consumer.consume(num_records, timeout_s)
        for message in messages:
            error = message.error()
            if error is not None:
                raise translate(error)
        self._batch += messages

    def _moved(self, left: Sequence[Message]) -> dict[Place, Offset]:
        """Positions that are not committed yet, before the records that are left. A position also counts control
        records, which the last record plus one does not."""
        found = self._consumer.position([TopicPartition(*place) for place in self._committed])
        positions = {place: Offset(at.offset) for place, at in zip(self._committed, found, strict=True)}
        positions |= {place_of(record): offset_of(record) for record in reversed(left)}
        return {
            place: offset for place, offset in positions.items() if offset >= 0 and offset != self._committed[place]
        }

    def _transact(self, outputs: list[Output], moved: Mapping[Place, Offset]) -> None:
        """The order of effects. Before: the batch was applied in memory only."""
        # 1. Begin.
        self._pulse.beat()
        self._begin()
        point("transaction.begun")
        # 2. Send what came of the batch.
        self._send(outputs)
        point("transaction.outputs-sent")
        # 3. Send the offsets. The group's metadata in them fences a zombie, so there are always some.
        self._send_offsets(moved or self._unmoved())
        point("transaction.offsets-sent")
        # 4. Commit.
        self._producer.commit_transaction(_CALL_S)
        self._committed.update(moved)
        point("transaction.committed")
        # 5. Only now may anything local be written.
        self._processor.committed(self._delivered)
        point("transaction.rows-written")

    def _begin(self) -> None:
        """With a new producer where the old one has lost its broker: `send_offsets_to_transaction` of that may never
        return, whatever time it is given (librdkafka's issue 5511)."""
        self._producer.poll(0)
        if self._was_down:
            self._producer = self._new_producer()
        self._producer.begin_transaction()

    def _on_error(self, error: KafkaError) -> None:
        say_refused(error)
        self._was_down |= error.code() == KafkaError._ALL_BROKERS_DOWN

    def _commit_offsets(self, moved: Mapping[Place, Offset]) -> None:
        self._begin()
        self._send_offsets(moved)
        self._producer.commit_transaction(_CALL_S)
        self._committed.update(moved)

    def _unmoved(self) -> dict[Place, Offset]:
        return {place: offset for place, offset in self._committed.items() if offset is not None}

    def _send_offsets(self, offsets: Mapping[Place, Offset]) -> None:
        positions = [to_commit(place, offset, self._deleted.get(place, 0)) for place, offset in offsets.items()]
        self._producer.send_offsets_to_transaction(positions, self._consumer.consumer_group_metadata(), _CALL_S)

    def _send(self, outputs: Sequence[Output]) -> None:
        self._delivered = {}
        # One producer writes one partition in order: the last record's offset is enough. A record that cannot be
        # delivered fails the commit.
        last = {
            (output.topic, output.partition): number
            for number, output in enumerate(outputs)
            if output.topic in self._tracked
        }
        tracked = set(last.values())
        for number, output in enumerate(outputs):
            self._produce(output, {"on_delivery": self._on_delivery} if number in tracked else {})

    def _produce(self, output: Output, options: dict[str, Any]) -> None:
        topic, key, value, headers, partition, timestamp_ms = output
        if headers is not None:
            options["headers"] = headers
        if partition is not None:
            options["partition"] = partition
        if timestamp_ms is not None:
            options["timestamp"] = timestamp_ms
        while True:
            try:
                self._producer.produce(topic, value, key, **options)
                return
            except BufferError:
                self._producer.poll(0.05)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._delivered[place_of(message)] = offset_of(message)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        found = self._offsets(consumer, partitions)
        starts = find_starts(self._kafka, self._group, read_committed(found), _CALL_S)
        self._committed = {place: start.committed for place, start in starts.items()}
        self._deleted = {place: start.deleted for place, start in starts.items()}
        self._set_back = set_back(starts)
        log.info("assigned", group=self._group, num_partitions=len(found))
        self._pulse.owns(self._committed)
        self._processor.assigned(self._committed)
        consumer.assign([TopicPartition(*place, start.first) for place, start in starts.items()])

    def _offsets(self, consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Waits for offsets in transactions that are not ended yet: another worker's last commit is counted."""
        try:
            return consumer.committed(partitions, timeout=_CALL_S)
        except KafkaException as error:
            raise KafkaUnavailable(
                f"the offsets of group {self._group} cannot be had for {_CALL_S:.0f} s: {translate(error)}; if the "
                "broker is there, a transaction never ended: kafka-transactions.sh find-hanging names it, abort ends it"
            ) from error

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        """Also called for partitions that were lost. What was read of them and not processed is somebody else's."""
        lost = {Place(at.topic, Partition(at.partition)) for at in partitions}
        self._batch = [record for record in self._batch if (record.topic(), record.partition()) not in lost]
        for place in lost:
            self._committed.pop(place, None)
            self._set_back.pop(place, None)
        log.info("revoked", group=self._group, num_partitions=len(lost))
        self._pulse.owns(self._committed)
        self._processor.revoked(list(lost))

    def _abandon(self) -> None:
        """The process is about to leave: give the partitions back, and do not wait for anything."""
        with suppress(KafkaException, RuntimeError, StreamsError):
            self._producer.purge()
            self._consumer.close()
