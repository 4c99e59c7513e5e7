"""The index stage: writes embedding records to the cold tier, and commits offsets only after the writes are durable.
What an operator asks for is written again, while there are no new records.

Owns the consumer, the retries and the order of effects. What a record does to the tier is in `records.py`.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from threading import Event
from typing import Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from indexer.errors import TierUnavailable
from indexer.freshness import FreshnessCounts, FreshnessWindow
from indexer.tiers import ColdTier
from schemas import stages
from schemas.headers import read_origin_ms
from schemas.ids import Generation, Micros, Offset, Partition
from schemas.times import now_us
from streams.errors import StreamsError
from streams.index.backoff import GroupStay, RetryBackoff
from streams.index.records import IndexRecords, RecordResult
from streams.index.replays import IndexReplays, ReplayedBatch
from streams.kafka.clients import new_consumer, new_producer
from streams.kafka.crash_points import crash_point
from streams.kafka.deleted_unread import parse_committed, to_commit
from streams.kafka.heartbeat import NO_HEARTBEAT, Heartbeat
from streams.kafka.kafka_errors import kafka_errors, translate
from streams.kafka.records import Place
from streams.kafka.resume_points import (
    NO_RESET,
    find_resume_points,
    from_the_start,
    has_committed_records,
    rewinds,
)
from streams.kafka.sending import DeadLetterDelivery
from streams.settings import IndexSettings, KafkaSettings

log = structlog.get_logger()

IDLE_S: Final = 0.2
"""How long a step waits for its first record. So an idle loop notices a stop within this time."""
POLL_HELD_BACK_S: Final = 5.0
"""A loop that is held back for longer than this polls, so that its group can rebalance."""
COMMIT_EVERY_MS: Final = 500
CALL_S: Final = 30.0
SWEEP_EVERY_S: Final = 600.0


class IndexLoop:
    """Call `run` once, from one thread. Any thread may read what it has counted."""

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: IndexSettings,
        tier: ColdTier,
        generation: Generation,
        tombstones_kept_s: int,
        *,
        sweep_every_s: float = SWEEP_EVERY_S,
        heartbeat: Heartbeat = NO_HEARTBEAT,
        may_read: Callable[[], bool] = lambda: True,
        catches_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """`may_read` is called before each batch. While it is False the loop stays in its group and reads nothing.
        While `catches_up` is True the events are old, and nothing is said of freshness."""
        self.freshness = FreshnessWindow()
        self.freshness_by_kind = FreshnessCounts()
        self.num_indexed = 0
        """Records that are durable in the tier, also those that were written again or changed nothing there."""
        self.num_dead_letters = 0
        self._kafka = kafka
        self._heartbeat = heartbeat
        self._may_read = may_read
        self._catches_up = catches_up
        self._settings = settings
        self._tier = tier
        self._group = stages.index_reads(generation).group
        self._records = IndexRecords(tier, generation)
        self._replays = IndexReplays(kafka, generation)
        self._tombstones_kept_s = tombstones_kept_s
        self._sweep_every_s = min(sweep_every_s, kafka.erase_within_s / 8)
        self._sweep_at = time.monotonic() + self._sweep_every_s
        self._carried_over: list[Message] = []
        """Records that were read during an outage; they are the next batch."""
        self._owned: set[Place] = set()
        self._is_closing = False
        self._num_deleted_unread: dict[Place, int] = {}
        self._stored: dict[Place, int] = {}
        """The offset that was stored last for each partition."""

    def run(self, stop: Event) -> None:
        """Returns when `stop` is set. Records that are not done by then are read again by the next owner of their
        partition. Raises StreamsError if only a restart can help."""
        self._heartbeat.start()
        with kafka_errors():
            producer = new_producer(self._kafka)
            consumer = self._new_consumer()
            consumer.subscribe(
                [*self._records.topics, *self._replays.topics],
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )
            with closing(self._replays):
                try:
                    while not stop.is_set():
                        self._step(consumer, producer, stop)
                finally:
                    self._is_closing = True
                    consumer.close()

    def _step(self, consumer: Consumer, producer: Producer, stop: Event) -> None:
        """One batch, with its effects in this order. After a crash between any two of them the batch is processed
        again. Nothing is lost, and writing the same records twice changes nothing."""
        self._heartbeat.loop_turned()
        if not self._may_read():
            self._hold_back(consumer, stop)
            return
        # 1. Read a batch. Only if there is none, read one that is to be written again.
        batch = self._read_batch(consumer)
        replayed = None if batch else self._replays.read(self._settings.batch_records)
        # 2. Write and flush, until every record is durable in the tier or known to be dead.
        letters = self._write_until_durable(consumer, batch, replayed, stop)
        # 3. Send the dead letters, until the broker has all of them.
        if letters is None or not self._send_dead_letters(consumer, producer, letters, stop):
            return
        if batch or replayed:
            crash_point("index.dead-lettered")
        # 4. Only now store the offsets, and tell the tier its position. A background thread of the client commits what
        # is stored.
        self._store_offsets(consumer, replayed)
        if batch or replayed:
            crash_point("index.stored")
        self._sweep_if_due()

    def _hold_back(self, consumer: Consumer, stop: Event) -> None:
        """Returns when the loop may read again, or is stopped. What was deleted is erased meanwhile, too."""
        topics = self._replays.topics
        with GroupStay(consumer, self._carried_over, POLL_HELD_BACK_S, leave_paused=topics) as stay:
            while not self._may_read() and not stop.wait(IDLE_S):
                self._heartbeat.loop_turned()
                self._heartbeat.still_working()
                stay.poll_if_due()
                self._sweep_if_due()

    def _read_batch(self, consumer: Consumer) -> list[Message]:
        """Does not wait for the first record if there are requests."""
        if self._carried_over:
            batch, self._carried_over = self._carried_over, []
            return batch
        first = consumer.poll(0 if self._replays.requests.may_have_more else IDLE_S)
        if first is None:
            return []
        rest = consumer.consume(self._settings.batch_records - 1, self._settings.linger_s)
        return [message for message in (first, *rest) if _is_record(message)]

    def _write_until_durable(
        self, consumer: Consumer, batch: list[Message], replayed: ReplayedBatch | None, stop: Event
    ) -> list[tuple[Message, str]] | None:
        """Returns the records that can never succeed, each with its cause. None if the loop was stopped during a
        retry."""
        dead: list[tuple[Message, str]] = []
        if replayed is not None:
            batch, dead = replayed.records, replayed.dead
        with self._backoff(consumer, stop) as backoff:
            while batch:
                self._heartbeat.still_working()
                results = list(zip(batch, self._records.process(batch, again=replayed is not None), strict=True))
                self.num_indexed += sum(result.status == "ok" for _, result in results)
                if replayed is None:
                    self._measure_freshness(results)
                dead += [(message, result.cause) for message, result in results if result.status == "dead"]
                batch = [message for message, result in results if result.status == "retry"]
                if batch and not backoff.wait():
                    return None
        return dead

    def _send_dead_letters(
        self, consumer: Consumer, producer: Producer, letters: list[tuple[Message, str]], stop: Event
    ) -> bool:
        """False if the loop was stopped before the broker had all dead letters."""
        if not letters:
            return True
        delivery = DeadLetterDelivery(producer, "index", letters)
        with self._backoff(consumer, stop) as backoff:
            while True:
                self._heartbeat.still_working()
                try:
                    delivery.deliver()
                except StreamsError as error:
                    log.warning("dead letters were not taken", letters=len(letters), error=str(error))
                    if not backoff.wait():
                        return False
                else:
                    self.num_dead_letters += len(letters)
                    log.warning("records became dead letters", letters=len(letters), first_cause=letters[0][1])
                    return True

    def _backoff(self, consumer: Consumer, stop: Event) -> RetryBackoff:
        return RetryBackoff(consumer, stop, self._carried_over, leave_paused=self._replays.topics)

    def _measure_freshness(self, results: Iterable[tuple[Message, RecordResult]]) -> None:
        """Measures how old each event is now, when its record is `ok`: from now on its effect is searchable."""
        if self._catches_up():
            return
        now_ms = time.time() * 1000
        done = [
            (message, (now_ms - origin_ms) / 1000)
            for message, result in results
            if result.status == "ok" and (origin_ms := read_origin_ms(message)) is not None
        ]
        self.freshness.add(age_s for _, age_s in done)
        for message, age_s in done:
            self.freshness_by_kind.add(self._records.fresh_kind(message), age_s)

    def _store_offsets(self, consumer: Consumer, replayed: ReplayedBatch | None) -> None:
        """Stores the offsets behind the requests that are done, and of each other partition the consumer's position if
        everything before it is done: if the loop holds no record at this moment."""
        positions = [] if self._carried_over else self._changed_positions(consumer)
        requests = [] if replayed is None else replayed.requests
        behind = self._replays.requests.offsets_after(requests)
        to_store = [*positions, *(TopicPartition(*place, offset) for place, offset in behind.items())]
        if to_store:
            consumer.store_offsets(offsets=[self._with_num_deleted(position) for position in to_store])
        if positions:
            self._stored.update({_place(position): position.offset for position in positions})
            self._tell_position({_place(position): position.offset for position in positions})
        self._replays.requests.done(requests)

    def _changed_positions(self, consumer: Consumer) -> list[TopicPartition]:
        """Of the partitions of records, if not stored yet. "Last record + 1" would stop before the control records of
        transactions, and the lag would never reach zero."""
        return [
            position
            for position in consumer.position(consumer.assignment())
            if position.topic not in self._replays.topics
            and position.offset >= 0
            and self._stored.get(_place(position)) != position.offset
        ]

    def _tell_position(self, offsets: Mapping[Place, int]) -> None:
        """Tells the tier up to which offsets of the posts' topic everything is durable in it. The special offset of a
        group that never committed, the start of the log, counts as 0."""
        of_posts = self._records.posts_topic
        self._tier.reached(
            {place.partition: Offset(max(0, offset)) for place, offset in offsets.items() if place.topic == of_posts}
        )

    def _with_num_deleted(self, position: TopicPartition) -> TopicPartition:
        """This offset, together with the number of records that were deleted unread."""
        place = _place(position)
        return to_commit(place, Offset(position.offset), self._num_deleted_unread.get(place, 0))

    def _sweep_if_due(self) -> None:
        if time.monotonic() < self._sweep_at:
            return
        self._sweep_at = time.monotonic() + self._sweep_every_s
        older_than_us = Micros(now_us() - self._tombstones_kept_s * 1_000_000)
        self._heartbeat.still_working()
        try:
            swept = self._tier.sweep(older_than_us, self._heartbeat.still_working)
        except TierUnavailable as error:
            log.warning("the cold tier cannot sweep now", error=str(error))
        else:
            log.info("tombstones swept", tombstones=swept)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """The client calls this with the added partitions only: the cooperative-sticky assignor leaves the others where
        they are."""
        if self._is_closing:
            # What the group gave since the last poll. A consumer that closes gets no committed offsets any more.
            consumer.incremental_assign([])
            return
        self._forget_stored(partitions)
        committed = parse_committed(consumer.committed(partitions, timeout=CALL_S))
        resume_points = find_resume_points(self._kafka, self._group, committed, CALL_S)
        of_records = {place: at for place, at in resume_points.items() if place.topic in self._records.topics}
        has_committed = any(at.committed for at in of_records.values())
        if has_committed and self._tier_is_empty() and has_committed_records(self._kafka, of_records, CALL_S):
            log.error(
                "the cold tier has lost everything that was indexed; all records are read again", group=self._group
            )
            resume_points |= from_the_start(self._kafka, of_records, CALL_S)
        consumer.incremental_assign(
            [TopicPartition(*place, resume.read_from) for place, resume in resume_points.items()]
        )
        self._assign_requests(consumer, {place: resume.read_from for place, resume in resume_points.items()})
        self._tell_position({place: resume.read_from for place, resume in resume_points.items()})
        self._num_deleted_unread.update({place: resume.deleted for place, resume in resume_points.items()})
        if rewound := rewinds(resume_points):
            offsets = [to_commit(place, offset, self._num_deleted_unread[place]) for place, offset in rewound.items()]
            for result in consumer.commit(offsets=offsets, asynchronous=False):
                if result.error is not None:
                    raise translate(result.error)
        self._owned.update(map(_place, partitions))
        self._heartbeat.owns(self._owned)

    def _assign_requests(self, consumer: Consumer, starts: Mapping[Place, int]) -> None:
        """The group has given the partitions to this consumer, and another one reads them."""
        requests = {place: start for place, start in starts.items() if place.topic in self._replays.topics}
        consumer.pause([TopicPartition(*place) for place in requests])
        self._replays.requests.take(requests)

    def _tier_is_empty(self) -> bool:
        """If it is, the records that the group has committed are lost: somebody removed its folder or its collections.
        A tier that cannot tell now counts as one that holds something."""
        try:
            return self._tier.is_empty()
        except TierUnavailable as error:
            log.warning("the cold tier cannot say whether it holds anything", error=str(error))
            return False

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Commits before the partitions go, so that their next owner does not repeat what is done."""
        try:
            consumer.commit(asynchronous=False)
        except KafkaException as error:
            # Nothing was stored since the last commit, or there is an outage. Then the next owner writes the same
            # records again, which changes nothing.
            log.debug("no commit on revoke", error=str(translate(error)))
        crash_point("index.committed")
        self._release(partitions)

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._release(partitions)

    def _release(self, partitions: list[TopicPartition]) -> None:
        self._replays.requests.give_back([_place(partition) for partition in partitions])
        self._forget_stored(partitions)
        self._owned.difference_update(map(_place, partitions))
        self._heartbeat.owns(self._owned)

    def _forget_stored(self, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            self._stored.pop(_place(partition), None)

    def _new_consumer(self) -> Consumer:
        return new_consumer(
            self._kafka,
            self._group,
            **{
                "partition.assignment.strategy": "cooperative-sticky",
                "enable.auto.commit": True,
                "auto.commit.interval.ms": COMMIT_EVERY_MS,
                **NO_RESET,
            },
        )


def _place(partition: TopicPartition) -> Place:
    return Place(partition.topic, Partition(partition.partition))


def _is_record(message: Message) -> bool:
    error = message.error()
    if error is None:
        return True
    if error.fatal() or error.code() == KafkaError._AUTO_OFFSET_RESET:
        raise translate(error)
    log.warning("the consumer reports an error and goes on", error=str(translate(error)))
    return False
