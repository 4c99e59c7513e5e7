"""Asks the broker for offsets: where partitions begin and end, how far groups are, and which record a group reads next.

Knows no stage's work, and nothing of what the records say.

A committed offset below the end of a partition need not be lag. The offsets in between may belong to control records of
transactions, which no reader ever sees. `first_records` finds out: it reads the first record that a reader would get.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final, NamedTuple, TypeVar

from confluent_kafka import Consumer, IsolationLevel, KafkaError, Message, TopicPartition
from confluent_kafka.admin import OffsetSpec

from schemas import topics
from schemas.ids import Generation, Millis, Offset, Partition
from schemas.stages import CommittedUnder
from streams.errors import KafkaUnavailable, LoginRefused
from streams.kafka.clients import admin, new_consumer
from streams.kafka.deleted_unread import Committed, metadata_of, parse_committed
from streams.kafka.kafka_errors import RefusedLogins, kafka_errors, translate
from streams.kafka.records import Place, offset_of, place_of
from streams.settings import KafkaSettings

_PROBE_FETCH_BYTES: Final = 16 * 1024
"""A probe needs one record of a partition; the broker sends at least one whole batch."""

_LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_EARLIEST: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call]

_PAUSE_S: Final = 0.1

_T = TypeVar("_T")

Offsets = dict[Place, Offset]


class FirstRecord(NamedTuple):
    """The first record that a reader of committed records gets from some offset on; `timestamp_ms` is Kafka's."""

    offset: Offset
    timestamp_ms: Millis


class OffsetReader:
    """Used by one thread. Every method may block up to `timeout_s` and raises StreamsError: LoginRefused if the broker
    refused the login all that time."""

    def __init__(self, kafka: KafkaSettings, timeout_s: float = 5.0) -> None:
        self._timeout_s = timeout_s
        self._refused_logins = RefusedLogins()
        self._admin = admin(kafka, self._refused_logins)
        self._kafka = kafka
        self._group_clients: dict[str, Consumer] = {}
        self._prober: Consumer | None = None

    def close(self) -> None:
        for client in (*self._group_clients.values(), *([self._prober] if self._prober is not None else [])):
            client.close()

    def places(self, names: Iterable[str]) -> list[Place]:
        """All partitions of these topics; a topic that does not exist is left out."""
        existing = self._ask(lambda left_s: self._admin.list_topics(timeout=left_s).topics)
        return [
            Place(name, Partition(number))
            for name in names
            if name in existing
            for number in sorted(existing[name].partitions)
        ]

    def generations(self) -> list[Generation]:
        """The generations whose embedding topics exist."""
        existing = self._ask(lambda left_s: self._admin.list_topics(timeout=left_s).topics)
        prefix = topics.post_embeddings(Generation(""))
        return [Generation(name.removeprefix(prefix)) for name in sorted(existing) if name.startswith(prefix)]

    def ends(self, places: Iterable[Place]) -> Offsets:
        """High watermarks: records of transactions that are still open count too."""
        return self._list_offsets(places, _LATEST)

    def stable_ends(self, places: Iterable[Place]) -> Offsets:
        """Last stable offsets: a reader of committed records gets everything before, and nothing from there on."""
        return self._list_offsets(places, _LATEST, IsolationLevel.READ_COMMITTED)

    def starts(self, places: Iterable[Place]) -> Offsets:
        """Log start offsets: everything before is deleted."""
        return self._list_offsets(places, _EARLIEST)

    def bounds(self, names: Iterable[str]) -> tuple[Offsets, Offsets]:
        """Starts and ends of all partitions of these topics; a topic that does not exist is left out."""
        places = self.places(names)
        return self.starts(places), self.ends(places)

    def committed(self, group: str, places: Iterable[Place]) -> dict[Place, Offset | None]:
        """None for a partition of which the group has committed nothing."""
        return {place: committed.offset for place, committed in self.progress(group, places).items()}

    def progress(self, group: str, places: Iterable[Place]) -> dict[Place, Committed]:
        """The committed offsets, with the number of records that were deleted before the group had read them."""
        return parse_committed(self._committed(group, [TopicPartition(*place) for place in places]))

    def progress_under(self, group: str, places: Iterable[Place], under: CommittedUnder) -> dict[Place, Committed]:
        """The same, of a group that commits under another topic."""
        by_number = {place.partition: place for place in places}
        answer = self._committed(group, [TopicPartition(under.topic, number) for number in by_number])
        tag = under.tag.encode()
        nothing = Committed(None, 0)
        return {
            by_number[place.partition]: committed if metadata_of(at).startswith(tag) else nothing
            for at, (place, committed) in zip(answer, parse_committed(answer).items(), strict=True)
        }

    def _committed(self, group: str, partitions: list[TopicPartition]) -> list[TopicPartition]:
        if not partitions:
            return []
        try:
            client = self._group_client
            return self._ask(lambda left_s: client(group).committed(partitions, timeout=left_s))
        except KafkaUnavailable:
            # A client that knew the coordinator before the broker was killed may wait for it forever (librdkafka 5511).
            self._group_clients.pop(group).close()
            raise

    def get_ready(self, groups: Iterable[str]) -> None:
        """Makes the clients of these groups, so that all of them find their coordinators at once, in the background."""
        for group in groups:
            self._group_client(group)

    def first_records(self, offsets: Offsets, ends: Offsets, timeout_s: float) -> dict[Place, FirstRecord | None]:
        """For each partition the first record in [offset, end); None if no reader will ever get one there.

        A partition is left out if the time ran out, or if an open transaction holds its records back.
        """
        if not offsets:
            return {}
        prober = self._probe_consumer()
        first_records: dict[Place, FirstRecord | None] = {}
        deadline = time.monotonic() + timeout_s
        with kafka_errors():
            prober.assign([TopicPartition(*place, offset) for place, offset in offsets.items()])
            while len(first_records) < len(offsets) and (wait_s := deadline - time.monotonic()) > 0:
                message = prober.poll(wait_s)
                if message is not None:
                    _take_probe(message, ends, first_records)
            prober.unassign()
        return first_records

    def _group_client(self, group: str) -> Consumer:
        """A consumer that never joins the group. The admin client's request does not serve: while the coordinator is
        not available yet it times out, and librdkafka 2.16 may then crash. It reads uncommitted, because asking for
        offsets would else wait for open transactions."""
        if group not in self._group_clients:
            self._group_clients[group] = new_consumer(self._kafka, group, **{"isolation.level": "read_uncommitted"})
        return self._group_clients[group]

    def _probe_consumer(self) -> Consumer:
        if self._prober is None:
            overrides = {
                "enable.partition.eof": True,
                "fetch.message.max.bytes": _PROBE_FETCH_BYTES,
                "queued.max.messages.kbytes": 1024,
                "fetch.wait.max.ms": 10,
            }
            self._prober = new_consumer(self._kafka, "nearline-lag", **overrides)
        return self._prober

    def _list_offsets(
        self, places: Iterable[Place], spec: OffsetSpec, isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED
    ) -> Offsets:
        specs = {TopicPartition(*place): spec for place in places}
        if not specs:
            return {}

        def ask(left_s: float) -> Offsets:
            futures: dict[TopicPartition, Future[Any]] = self._admin.list_offsets(
                specs, isolation_level=isolation, request_timeout=left_s
            )
            return {_place(partition): Offset(future.result().offset) for partition, future in futures.items()}

        return self._ask(ask)

    def _ask(self, ask: Callable[[float], _T]) -> _T:
        """Calls `ask` with the seconds that are left, again and again until it succeeds or the time is up.

        A leader that has just moved, or a coordinator that is loading, answers a moment later."""
        self._refused_logins.newest = None
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                with kafka_errors():
                    return ask(max(_PAUSE_S, deadline - time.monotonic()))
            except KafkaUnavailable as error:
                self._admin.poll(0)
                # A client that knew the broker before its restart may never learn the new epochs of its leaders.
                self._admin = admin(self._kafka, self._refused_logins)
                if time.monotonic() + _PAUSE_S > deadline:
                    if self._refused_logins.newest is not None:
                        raise LoginRefused(
                            f"the broker does not let this client in: {self._refused_logins.newest}; mend kafka.options"
                        ) from error
                    raise
                time.sleep(_PAUSE_S)


def going_on_at(committed: Mapping[Place, Offset | None], starts: Offsets) -> Offsets:
    """Where a group will go on reading: it skips what retention has deleted."""
    return {place: max(starts[place], offset or Offset(0)) for place, offset in committed.items()}


def _take_probe(message: Message, ends: Offsets, first_records: dict[Place, FirstRecord | None]) -> None:
    """The first message of a partition is the answer for it: a record, or its end."""
    error = message.error()
    if error is not None and error.code() != KafkaError._PARTITION_EOF:
        raise translate(error)
    place, offset = place_of(message), offset_of(message)
    if place in first_records:
        return
    if error is None and offset < ends[place]:
        first_records[place] = FirstRecord(offset, Millis(message.timestamp()[1]))
    elif offset >= ends[place]:
        first_records[place] = None


def _place(partition: TopicPartition) -> Place:
    return Place(partition.topic, Partition(partition.partition))
