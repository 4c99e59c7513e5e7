"""The consume-process-produce loop in Kafka transactions, shared by the context stage and the encode stage.

Owns the consumer, the producer, the order of effects and which offsets are committed. What a record means is the
processor's business. Every error leaves `run` and ends the process, which is then started again: that is how
these stages wait out an outage. Nothing is lost or done twice, because an uncommitted transaction leaves no trace.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from schemas.ids import Offset
from streams.errors import StreamsError
from streams.kafka.clients import new_consumer, new_producer
from streams.kafka.crash_points import crash_point
from streams.kafka.group_progress import GroupProgress, Progress
from streams.kafka.heartbeat import NO_HEARTBEAT, Heartbeat
from streams.kafka.kafka_errors import kafka_errors, log_refused_login, translate
from streams.kafka.pace import FULL_PACE, Pace
from streams.kafka.processor import Background, Processor
from streams.kafka.records import Output, Place, offset_of, place_of
from streams.kafka.request_reader import RequestReader
from streams.kafka.resume_points import NO_RESET, rewinds
from streams.kafka.sending import produce
from streams.kafka.time_limit import call_within
from streams.settings import KafkaSettings

_IDLE_S: Final = 0.1
"""How long to wait for the first record of a batch. After every wait the processor is asked for due work."""
_LINGER_S: Final = 0.01
"""How long to wait for more records after the first one of a batch, even if the interval since the previous batch is
over."""
_POLL_HELD_BACK_S: Final = 5.0
"""A loop that is held back for longer than this polls, so that its group can rebalance."""
_CALL_S: Final = 30.0
"""The time limit of one call to the broker."""
TRANSACTION_MS: Final = 15_000
"""If a worker dies within a transaction and is not started again, readers wait for this time and for the broker's next
check for expired transactions."""
_OFFSETS_S: Final = TRANSACTION_MS / 1000 + 5
"""The time limit for sending the offsets. The client promises to give up after TRANSACTION_MS, when the transaction has
expired. But if the group's coordinator has gone away it waits for it, maybe for ever (librdkafka issues 5456 and
5511)."""

log = structlog.get_logger(__name__)


class TransactionalLoop:
    """One worker. Its `transactional_id` is made of stage, node and slot. A worker that is started again has the same
    id, and so ends the transaction that its predecessor left open."""

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
        reported_topics: frozenset[str] = frozenset(),
        background: Background | None = None,
        heartbeat: Heartbeat = NO_HEARTBEAT,
        pace: Pace = FULL_PACE,
        on_transaction: Callable[[float], None] = lambda _: None,
        progress: Progress | None = None,
    ) -> None:
        """`batch_records` is called for each batch and returns how many records the batch may have. Batches that are
        not full begin at least `interval_s` apart, because a transaction costs the broker as much for one record as for
        a thousand. The loop reports to the processor the last offset written to each partition of `reported_topics`.
        Outputs to them must name their partition. `background` is what the loop does while it has no records.
        `heartbeat` belongs to this loop alone. `on_transaction` is told the seconds that each transaction took.
        `progress` says what is read by the owner of a partition of `topics`, and from where on; None: that partition,
        from the group's offset."""
        self._kafka = kafka
        self._processor = processor
        self._group = group
        self._topics = list(topics)
        self._transactional_id = transactional_id
        self._batch_records = batch_records
        self._interval_s = interval_s
        self._last_batch_at = 0.0
        self._reported_topics = reported_topics
        self._background = background
        self._request_topics = [] if background is None else [background.topic]
        # The background has put its requests off, so there is no hurry to ask it again.
        self._put_off = False
        self._requests = RequestReader(kafka)
        self._heartbeat = heartbeat
        self._pace = pace
        self._on_transaction = on_transaction
        self._progress = progress or GroupProgress(kafka, group)
        self._held_back_since: float | None = None
        self._is_closing = False
        # A field, so that `_on_revoke` can drop records while the batch is being read.
        self._batch: list[Message] = []
        # The keys are the partitions that this worker owns, the values what the group has committed there.
        self._committed_offsets: dict[Place, Offset | None] = {}
        self._num_deleted_unread: dict[Place, int] = {}
        # Rewinds that are not committed yet.
        self._rewinds: dict[Place, Offset] = {}
        # The offset of the last output of the current transaction in each partition of the reported topics.
        self._last_written: dict[Place, Offset] = {}

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
            self._close()

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
        consumer.subscribe([*self._topics, *self._request_topics], on_assign=self._on_assign, on_revoke=self._on_revoke)
        return consumer

    def _run_batch(self) -> None:
        self._heartbeat.loop_turned()
        if not self._pace.may_read():
            self._hold_back()
            return
        records = self._read_batch()
        if self._rewinds:
            self._run_transaction(self._processor.rewind(self._rewinds), self._rewinds)
            self._rewinds = {}
        self._run_due_work(records)
        if not records and (offsets := self._offsets_to_commit(())):
            # Only control records were read. Committing past them brings the lag down to zero.
            self._commit_offsets(offsets)
        if not records and self._background is not None:
            self._run_background(self._background)
        while records:
            outputs, num_records = self._processor.process(records, self._offsets_to_commit)
            records = records[num_records:]
            self._run_transaction(outputs, self._offsets_to_commit(records))
            if records:
                self._run_due_work(records)
        self._batch = []

    def _run_due_work(self, records: Sequence[Message]) -> None:
        while (outputs := self._processor.due_outputs(records)) is not None:
            self._run_transaction(outputs, {})

    def _run_background(self, background: Background) -> None:
        """One batch of requests, so that a record that comes in waits for no more than that."""
        requests = self._requests.peek(background.batch_records())
        if not requests:
            background.rest()
            return
        processed = background.process(requests, self._committed_offsets)
        self._put_off = processed is None
        if processed is None:
            # Nothing of these partitions is committed now, and yet this loop does not stand still.
            self._heartbeat.still_working()
        else:
            done = requests[: processed.num_records]
            self._run_transaction(processed.outputs, self._requests.offsets_after(done))
            self._requests.done(done)

    def _read_batch(self) -> list[Message]:
        """Waits at most `_IDLE_S` for the first record, then for more until `interval_s` after the previous batch, but
        at least `_LINGER_S`. Does not wait for the first one if there are requests."""
        if self._held_back_since is not None:
            self._held_back_since = None
            self._consumer.resume(self._consumer.assignment())
        if not self._batch:
            has_requests = self._requests.may_have_more and not self._put_off
            self._consume(1, 0 if has_requests else _IDLE_S)
        max_records = self._batch_records()
        if self._batch and max_records > 1:
            rest_of_interval_s = self._last_batch_at + self._interval_s - time.monotonic()
            self._consume(max_records - 1, max(_LINGER_S, rest_of_interval_s))
        if self._batch:
            self._last_batch_at = time.monotonic()
            self._pace.has_read(len(self._batch))
        return self._batch

    def _hold_back(self) -> None:
        """Waits a moment, and says that this is no standstill. After a while it polls, because the group drops a
        consumer that does not. Polling needs a pause, which throws the prefetched records away. What a poll returns
        nevertheless is the beginning of the next batch."""
        now = time.monotonic()
        self._held_back_since = self._held_back_since or now
        self._heartbeat.still_working()
        time.sleep(_IDLE_S)
        if now - self._held_back_since >= _POLL_HELD_BACK_S:
            # At every poll: partitions that were assigned since the last one are not paused yet.
            self._consumer.pause(self._consumer.assignment())
            self._consume(1, 0)

    def _consume(self, num_records: int, timeout_s: float) -> None:
        # `consume` may call `_on_revoke`, which replaces `self._batch`. So the batch is extended only after the call.
        messages = self._consumer.consume(num_records, timeout_s)
        for message in messages:
            error = message.error()
            if error is not None:
                raise translate(error)
        self._batch += messages

    def _offsets_to_commit(self, remaining: Sequence[Message]) -> dict[Place, Offset]:
        """For each owned partition, where the group must go on: at its first record in `remaining`, else at the
        consumer's position. Partitions where that offset is committed already are left out. The position is used
        instead of "last record + 1", because only the position is also past control records."""
        owned = {place: at for place, at in self._committed_offsets.items() if place.topic not in self._request_topics}
        positions = self._consumer.position([TopicPartition(*place) for place in owned])
        offsets = {place: Offset(position.offset) for place, position in zip(owned, positions, strict=True)}
        # Reversed, so that the first record of each partition is the one that stays.
        offsets |= {place_of(record): offset_of(record) for record in reversed(remaining)}
        # A negative position: nothing was read from the partition yet.
        return {place: offset for place, offset in offsets.items() if offset >= 0 and offset != owned[place]}

    def _run_transaction(self, outputs: list[Output], offsets: Mapping[Place, Offset]) -> None:
        """The order of effects. Before the first step the batch was applied in memory only."""
        began_s = time.monotonic()
        # 1. Begin.
        self._heartbeat.still_working()
        self._begin()
        crash_point("transaction.begun")
        # 2. Send the outputs of the batch.
        self._send(outputs)
        crash_point("transaction.outputs-sent")
        # 3. Send the offsets. Every transaction sends offsets, even if none has changed: with them the broker checks
        # that this worker is still in the group, which fences a zombie.
        self._send_offsets(offsets or self._unchanged_offsets())
        crash_point("transaction.offsets-sent")
        # 4. Commit.
        self._producer.commit_transaction(_CALL_S)
        self._committed_offsets.update(offsets)
        crash_point("transaction.committed")
        # 5. Only now may the processor write anything to its local state.
        self._processor.on_committed(self._last_written)
        crash_point("transaction.rows-written")
        self._on_transaction(time.monotonic() - began_s)

    def _begin(self) -> None:
        """Makes a new producer if the old one has lost all its brokers: the old one's `send_offsets_to_transaction` may
        never return, whatever timeout it is given (librdkafka issue 5511)."""
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
        self._committed_offsets.update(offsets)

    def _unchanged_offsets(self) -> dict[Place, Offset]:
        return {place: offset for place, offset in self._committed_offsets.items() if offset is not None}

    def _send_offsets(self, offsets: Mapping[Place, Offset]) -> None:
        num_deleted = self._num_deleted_unread
        to_commit = self._progress.to_commit
        partitions = [to_commit(place, offset, num_deleted.get(place, 0)) for place, offset in offsets.items()]
        group = self._consumer.consumer_group_metadata()
        send = partial(self._producer.send_offsets_to_transaction, partitions, group, _CALL_S)
        call_within(_OFFSETS_S, "sending the offsets of a transaction", send)

    def _send(self, outputs: Sequence[Output]) -> None:
        """Asks for a delivery report only for the last output to each partition of the reported topics. That is enough:
        one producer writes a partition in order, and an output that cannot be delivered fails the commit."""
        self._last_written = {}
        last_by_partition = {
            (output.topic, output.partition): number
            for number, output in enumerate(outputs)
            if output.topic in self._reported_topics
        }
        numbers_to_report = set(last_by_partition.values())
        for number, output in enumerate(outputs):
            produce(self._producer, output, on_delivery=self._on_delivery if number in numbers_to_report else None)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._last_written[place_of(message)] = offset_of(message)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._is_closing:
            # What the group gave since the last poll. A consumer that closes gets no committed offsets any more.
            consumer.assign([])
            return
        resume_points = self._progress.resume_points(consumer, partitions)
        self._committed_offsets = {place: resume.committed for place, resume in resume_points.items()}
        self._num_deleted_unread = {place: resume.deleted for place, resume in resume_points.items()}
        self._rewinds = rewinds(resume_points)
        log.info("assigned", group=self._group, num_partitions=len(partitions))
        self._heartbeat.owns(self._committed_offsets)
        self._processor.on_assigned(self._committed_offsets)
        starts = {place: resume.read_from for place, resume in resume_points.items()}
        requests = {place: start for place, start in starts.items() if place.topic in self._request_topics}
        self._requests.take(requests)
        consumer.assign([TopicPartition(*place, start) for place, start in starts.items() if place not in requests])

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        """Also called when the group has already given the partitions to another worker. Records that were read and not
        processed are dropped here, because the new owner reads them again."""
        revoked = set(self._progress.places(partitions))
        self._batch = [record for record in self._batch if (record.topic(), record.partition()) not in revoked]
        for place in revoked:
            self._committed_offsets.pop(place, None)
            self._rewinds.pop(place, None)
        self._requests.give_back(revoked)
        log.info("revoked", group=self._group, num_partitions=len(revoked))
        self._heartbeat.owns(self._committed_offsets)
        self._processor.on_revoked(list(revoked))

    def _close_at_once(self) -> None:
        """The process is about to end: gives the partitions back. Waits only for the processor's `on_revoked`."""
        with suppress(KafkaException, RuntimeError, StreamsError):
            self._producer.purge()
            self._close()

    def _close(self) -> None:
        # The consumer first: closing it revokes the partitions.
        self._is_closing = True
        self._consumer.close()
        self._requests.close()
        if self._background is not None:
            self._background.close()
