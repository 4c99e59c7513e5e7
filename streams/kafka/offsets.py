"""Asks the broker for offsets: where topics begin and end, how far groups are, and which record comes first.

Knows no stage's work, and nothing of what the records say.

A committed offset below the end need not be lag: what is between may be control records of transactions, which no
reader ever sees. So a doubtful partition is looked at: the first record that a reader could still see, or none.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final, NamedTuple, TypeVar

from confluent_kafka import Consumer, IsolationLevel, KafkaError, Message, TopicPartition
from confluent_kafka.admin import OffsetSpec

from schemas import topics
from schemas.ids import Generation, Millis, Offset, Partition
from streams.errors import KafkaUnavailable, LoginRefused
from streams.kafka.clients import RefusedLogins, admin, kafka_errors, new_consumer, translate
from streams.kafka.deleted_unread import Committed, parse_committed
from streams.kafka.records import Place, offset_of, place_of
from streams.settings import KafkaSettings

_PROBE_FETCH_BYTES: Final = 16 * 1024
"""One record of a partition is enough; the broker sends at least one whole batch."""

_LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_EARLIEST: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call]

_PAUSE_S: Final = 0.1

_T = TypeVar("_T")

Offsets = dict[Place, Offset]


class FirstRecord(NamedTuple):
    """The first record that a reader of committed records sees from some offset on; `timestamp` is Kafka's."""

    offset: Offset
    timestamp_ms: Millis


class OffsetReader:
    """Asks the broker for offsets. One thread; every method may block up to `timeout_s` and raises StreamsError:
    LoginRefused where the broker did not let it in all that time."""

    def __init__(self, kafka: KafkaSettings, timeout_s: float = 5.0) -> None:
        self._timeout_s = timeout_s
        self._refusals = RefusedLogins()
        self._admin = admin(kafka, self._refusals)
        self._kafka = kafka
        self._askers: dict[str, Consumer] = {}
        self._prober: Consumer | None = None

    def close(self) -> None:
        for client in (*self._askers.values(), *([self._prober] if self._prober is not None else [])):
            client.close()

    def places(self, names: Iterable[str]) -> list[Place]:
        """All partitions of those of these topics that exist."""
        found = self._ask(lambda left_s: self._admin.list_topics(timeout=left_s).topics)
        return [
            Place(name, Partition(number))
            for name in names
            if name in found
            for number in sorted(found[name].partitions)
        ]

    def generations(self) -> list[Generation]:
        """Those whose embeddings the broker has."""
        found = self._ask(lambda left_s: self._admin.list_topics(timeout=left_s).topics)
        prefix = topics.post_embeddings(Generation(""))
        return [Generation(name.removeprefix(prefix)) for name in sorted(found) if name.startswith(prefix)]

    def ends(self, places: Iterable[Place]) -> Offsets:
        """High watermarks, so that what is written but not yet committed by its transaction counts too."""
        return self._list_offsets(places, _LATEST)

    def stable_ends(self, places: Iterable[Place]) -> Offsets:
        """Last stable offsets: up to there a reader of committed records sees everything, and nothing from there on."""
        return self._list_offsets(places, _LATEST, IsolationLevel.READ_COMMITTED)

    def starts(self, places: Iterable[Place]) -> Offsets:
        """Log start offsets: what was before is deleted."""
        return self._list_offsets(places, _EARLIEST)

    def committed(self, group: str, places: Iterable[Place]) -> dict[Place, Offset | None]:
        """None where the group has committed nothing."""
        return {place: at.offset for place, at in self.progress(group, places).items()}

    def progress(self, group: str, places: Iterable[Place]) -> dict[Place, Committed]:
        """Also how many records were deleted before the group had read them."""
        wanted = [TopicPartition(*place) for place in places]
        if not wanted:
            return {}
        try:
            return parse_committed(self._ask(lambda left_s: self._asker(group).committed(wanted, timeout=left_s)))
        except KafkaUnavailable:
            # One that has asked for a group before a kill may wait for that coordinator for good (librdkafka 5511).
            self._askers.pop(group).close()
            raise

    def get_ready(self, groups: Iterable[str]) -> None:
        """Has the clients of these groups find their coordinators at the same time, in the background."""
        for group in groups:
            self._asker(group)

    def first_records(self, offsets: Offsets, ends: Offsets, timeout_s: float) -> dict[Place, FirstRecord | None]:
        """For each place the first record in [offset, end), None when no reader will ever see one.

        Left out: where time ran out, and where an open transaction keeps the answer back.
        """
        prober = self._probe_consumer()
        found: dict[Place, FirstRecord | None] = {}
        deadline = time.monotonic() + timeout_s
        with kafka_errors():
            prober.assign([TopicPartition(*place, offset) for place, offset in offsets.items()])
            while len(found) < len(offsets) and (wait_s := deadline - time.monotonic()) > 0:
                message = prober.poll(wait_s)
                if message is not None:
                    _take_probe(message, ends, found)
            prober.unassign()
        return found

    def _asker(self, group: str) -> Consumer:
        """Never joins the group. Not the admin client's request: where the coordinator is not available yet, it runs
        into its time-out and librdkafka 2.16 may then crash. And not read_committed: it would wait for open
        transactions, and what is committed is known without them."""
        if group not in self._askers:
            self._askers[group] = new_consumer(self._kafka, group, **{"isolation.level": "read_uncommitted"})
        return self._askers[group]

    def _probe_consumer(self) -> Consumer:
        if self._prober is None:
            own = {
                "enable.partition.eof": True,
                "fetch.message.max.bytes": _PROBE_FETCH_BYTES,
                "queued.max.messages.kbytes": 1024,
                "fetch.wait.max.ms": 10,
            }
            self._prober = new_consumer(self._kafka, "nearline-lag", **own)
        return self._prober

    def _list_offsets(
        self, places: Iterable[Place], spec: OffsetSpec, isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED
    ) -> Offsets:
        wanted = {TopicPartition(*place): spec for place in places}
        if not wanted:
            return {}

        def ask(left_s: float) -> Offsets:
            futures: dict[TopicPartition, Future[Any]] = self._admin.list_offsets(
                wanted, isolation_level=isolation, request_timeout=left_s
            )
            return {_place(one): Offset(future.result().offset) for one, future in futures.items()}

        return self._ask(ask)

    def _ask(self, ask: Callable[[float], _T]) -> _T:
        """A leader that has just moved, a coordinator that loads: such a no is a yes a moment later."""
        self._refusals.newest = None
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                with kafka_errors():
                    return ask(max(_PAUSE_S, deadline - time.monotonic()))
            except KafkaUnavailable as error:
                self._admin.poll(0)
                # A client that has seen a broker before its restart may never learn the new epochs of its leaders.
                self._admin = admin(self._kafka, self._refusals)
                if time.monotonic() + _PAUSE_S > deadline:
                    if self._refusals.newest is not None:
                        raise LoginRefused(
                            f"the broker does not let this client in: {self._refusals.newest}; mend kafka.options"
                        ) from error
                    raise
                time.sleep(_PAUSE_S)


def going_on_at(committed: Mapping[Place, Offset | None], starts: Offsets) -> Offsets:
    """Where a group will go on reading: what retention has removed is behind it."""
    return {place: max(starts[place], offset or Offset(0)) for place, offset in committed.items()}


def _take_probe(message: Message, ends: Offsets, found: dict[Place, FirstRecord | None]) -> None:
    """The first thing a partition says decides: a record, or its end."""
    error = message.error()
    if error is not None and error.code() != KafkaError._PARTITION_EOF:
        raise translate(error)
    place, offset = place_of(message), offset_of(message)
    if place in found:
        return
    if error is None and offset < ends[place]:
        found[place] = FirstRecord(offset, Millis(message.timestamp()[1]))
    elif offset >= ends[place]:
        found[place] = None


def _place(one: TopicPartition) -> Place:
    return Place(one.topic, Partition(one.partition))
