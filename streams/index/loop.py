"""The index stage: embedding records into the cold tier, offsets only after their effect is durable.

Owns the consumer, the waiting and the order of effects. What a record does to the tier is `index_records`.
"""

import time
from collections.abc import Iterable
from threading import Event
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from indexer.errors import TierUnavailable
from indexer.freshness import FreshnessWindow
from indexer.tiers import ColdTier
from schemas import stages
from schemas.headers import origin_ms
from schemas.ids import Generation, Micros, Offset, Partition
from schemas.times import now_us
from streams.errors import StreamsError
from streams.index.outage_wait import Patience
from streams.index.records import IndexRecords
from streams.index.verdicts import Verdict
from streams.kafka.clients import consumer_config, kafka_errors, producer_config, translate
from streams.kafka.crash_points import point
from streams.kafka.deleted_unread import parse_committed, to_commit
from streams.kafka.heartbeat import NO_HEARTBEAT, Heartbeat
from streams.kafka.records import Place
from streams.kafka.resume_points import NO_RESET, find_resume_points, rewinds
from streams.kafka.sending import DeadLetterDelivery
from streams.settings import IndexSettings, KafkaSettings

log = structlog.get_logger()

IDLE_S: Final = 0.2
"""How long a step waits for its first record; a stop is seen after it."""
COMMIT_EVERY_MS: Final = 500
CALL_S: Final = 30.0
SWEEP_EVERY_S: Final = 600.0


class IndexLoop:
    """`run` belongs to one thread; `freshness` may be read from any."""

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
    ) -> None:
        self.freshness = FreshnessWindow()
        self._kafka = kafka
        self._heartbeat = heartbeat
        self._settings = settings
        self._tier = tier
        self._group = stages.index_reads(generation).group
        self._records = IndexRecords(tier, generation)
        self._tombstones_kept_s = tombstones_kept_s
        self._sweep_every_s = min(sweep_every_s, kafka.erase_within_s / 8)
        self._sweep_at = time.monotonic() + self._sweep_every_s
        self._held: list[Message] = []
        self._owned: set[Place] = set()
        self._deleted: dict[Place, int] = {}
        self._stored: dict[tuple[str, int], int] = {}

    def run(self, stop: Event) -> None:
        """Returns when `stop` is set; what is not done by then is read again by whoever comes next. Raises
        StreamsError where only another start can help."""
        self._heartbeat.start()
        with kafka_errors():
            producer = Producer(producer_config(self._kafka))
            consumer = Consumer(self._consumer_config())
            consumer.subscribe(
                self._records.topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
            )
            try:
                while not stop.is_set():
                    self._step(consumer, producer, stop)
            finally:
                consumer.close()

    def _step(self, consumer: Consumer, producer: Producer, stop: Event) -> None:
        """The order of effects. A crash between any two of them repeats what is idempotent and loses nothing."""
        self._heartbeat.turn()
        # 1. Take what is there.
        batch = self._take(consumer)
        # 2. Write and flush, until every record is durable in the tier or known to be impossible.
        impossible = self._index(consumer, batch, stop)
        # 3. Dead letters, until the broker has them.
        if impossible is None or not self._bury(consumer, producer, impossible, stop):
            return
        if batch:
            point("index.dead-lettered")
        # 4. Only now may the offsets move; a background thread commits what is stored.
        if not self._held:
            self._store(consumer)
        if batch:
            point("index.stored")
        self._sweep_now_and_then()

    def _take(self, consumer: Consumer) -> list[Message]:
        if self._held:
            held, self._held = self._held, []
            return held
        first = consumer.poll(IDLE_S)
        if first is None:
            return []
        rest = consumer.consume(self._settings.batch_records - 1, self._settings.linger_s)
        return [message for message in (first, *rest) if _is_record(message)]

    def _index(self, consumer: Consumer, batch: list[Message], stop: Event) -> list[tuple[Message, str]] | None:
        """What can never succeed, with its cause. None where a stop came first."""
        impossible: list[tuple[Message, str]] = []
        with Patience(consumer, stop, self._held) as patience:
            while batch:
                self._heartbeat.beat()
                judged = list(zip(batch, self._records.process(batch), strict=True))
                self._measure(judged)
                impossible += [(message, verdict.cause) for message, verdict in judged if verdict.result == "dead"]
                batch = [message for message, verdict in judged if verdict.result == "retry"]
                if batch and not patience.wait():
                    return None
        return impossible

    def _bury(self, consumer: Consumer, producer: Producer, letters: list[tuple[Message, str]], stop: Event) -> bool:
        """False where a stop came first."""
        delivery = DeadLetterDelivery(producer, "index", letters)
        with Patience(consumer, stop, self._held) as patience:
            while letters:
                self._heartbeat.beat()
                try:
                    delivery.deliver()
                except StreamsError as error:
                    log.warning("dead letters were not taken", letters=len(letters), error=str(error))
                    if not patience.wait():
                        return False
                else:
                    log.warning("records became dead letters", letters=len(letters), first_cause=letters[0][1])
                    return True
        return True

    def _measure(self, judged: Iterable[tuple[Message, Verdict]]) -> None:
        """Everything that is `ok` is searchable from now on."""
        now_ms = time.time() * 1000
        origins = (origin_ms(message) for message, verdict in judged if verdict.result == "ok")
        self.freshness.add((now_ms - origin) / 1000 for origin in origins if origin is not None)

    def _store(self, consumer: Consumer) -> None:
        """The consumer's position, not the last record plus one: the control records of transactions take offsets too,
        and lag must reach zero. Everything before it is done, because the loop holds no record here."""
        moved = [
            place
            for place in consumer.position(consumer.assignment())
            if place.offset >= 0 and self._stored.get((place.topic, place.partition)) != place.offset
        ]
        if moved:
            consumer.store_offsets(offsets=[self._to_commit(at) for at in moved])
            self._stored.update({(place.topic, place.partition): place.offset for place in moved})

    def _to_commit(self, at: TopicPartition) -> TopicPartition:
        place = _place(at)
        return to_commit(place, Offset(at.offset), self._deleted.get(place, 0))

    def _sweep_now_and_then(self) -> None:
        if time.monotonic() < self._sweep_at:
            return
        self._sweep_at = time.monotonic() + self._sweep_every_s
        older_than_us = Micros(now_us() - self._tombstones_kept_s * 1_000_000)
        self._heartbeat.beat()
        try:
            swept = self._tier.sweep(older_than_us, self._heartbeat.beat)
        except TierUnavailable as error:
            log.warning("the cold tier cannot sweep now", error=str(error))
        else:
            log.info("tombstones swept", tombstones=swept)

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Those that are added: cooperative-sticky leaves the others where they are."""
        self._forget(partitions)
        committed = parse_committed(consumer.committed(partitions, timeout=CALL_S))
        starts = find_resume_points(self._kafka, self._group, committed, CALL_S)
        consumer.incremental_assign([TopicPartition(*place, start.read_from) for place, start in starts.items()])
        self._deleted.update({place: start.deleted for place, start in starts.items()})
        if lost := rewinds(starts):
            offsets = [to_commit(place, offset, self._deleted[place]) for place, offset in lost.items()]
            for at in consumer.commit(offsets=offsets, asynchronous=False):
                if at.error is not None:
                    raise translate(at.error)
        self._owned.update(map(_place, partitions))
        self._heartbeat.owns(self._owned)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Whoever gets them next must not repeat what is done."""
        try:
            consumer.commit(asynchronous=False)
        except KafkaException as error:
            # Nothing stored since the last commit, or an outage: then it is repeated, which changes nothing.
            log.debug("no commit on revoke", error=str(translate(error)))
        point("index.committed")
        self._gone(partitions)

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._gone(partitions)

    def _gone(self, partitions: list[TopicPartition]) -> None:
        self._forget(partitions)
        self._owned.difference_update(map(_place, partitions))
        self._heartbeat.owns(self._owned)

    def _forget(self, partitions: list[TopicPartition]) -> None:
        for place in partitions:
            self._stored.pop((place.topic, place.partition), None)

    def _consumer_config(self) -> dict[str, Any]:
        return consumer_config(
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
