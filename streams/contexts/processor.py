"""Processes the batches of the context stage: finds the row of each record and collects the outputs to send.

`contexts/` decides what an event does to a row. The transactional loop decides when outputs are sent and committed.
A *flush* record asks its partition to publish now everything that is delayed (`operate/wait.py` sends it).
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import structlog
from confluent_kafka import Message
from prometheus_client import CollectorRegistry

from contexts.members import apply_member_action, apply_member_event
from contexts.posts import apply_activity, apply_post_event, expire_waiting
from contexts.rows import GivenUpAction, Hop, MemberChange, PostChange
from contexts.settings import ContextRules
from schemas import topics, traces
from schemas.dead_letters import DeadLetterKind
from schemas.errors import BadRecord, NotJson
from schemas.events import Activity, Event, MemberEvent, PostEvent, decode_event, event_order, event_time_us
from schemas.headers import Origin, headers_of, read_origin_ms, with_origin
from schemas.hops import MemberAction, PostActivity, decode_member_action, decode_post_activity, encode_hop
from schemas.ids import Kind, MemberId, Micros, Millis, Offset, Partition
from streams.contexts.counted_offsets import offset_cells, refuse_lost_offsets
from streams.contexts.metrics import ContextMetrics
from streams.contexts.restore import restore, topic_ids
from streams.contexts.role import ONLY_VERSION, Role
from streams.contexts.row_store import RowStore, remove_abandoned
from streams.contexts.table import Table, member_table, post_table
from streams.contexts.table_partition import RowCache
from streams.contexts.wrong_partition import RecordsInWrongPartition
from streams.kafka.dead_letters import dead_letter_record, given_up_action_record
from streams.kafka.heartbeat import Beat, no_beat
from streams.kafka.processor import OffsetsToCommit, Processed
from streams.kafka.records import Output, Place, offset_of, place_of
from streams.settings import KafkaSettings

STAGE: Final = "contexts"

MAX_OUTPUTS: Final = 50_000
"""A batch is cut when its records have caused this many outputs. Publications and changelog records come on top. A
deleted post is taken out of up to a thousand histories, so a batch of thousands of deletes would take longer than a
transaction may."""
CACHED_ROWS: Final = 16_000
"""For all partitions together. A member row with a full history has some 25 kB, so this is at most 400 MB."""
_LOG_EVERY_S: Final = 30.0

log = structlog.get_logger(__name__)


class ContextProcessor:
    """Plugs into the transactional loop. `clock` gives the time for windows and due times. One transaction takes at
    most `max_due_rows` due posts and as many due members of a partition, twice as many if the partition is flushed."""

    def __init__(
        self,
        kafka: KafkaSettings,
        rules: ContextRules,
        folder: Path,
        max_due_rows: int,
        clock: Callable[[], Micros],
        *,
        beat: Beat = no_beat,
        metrics: ContextMetrics | None = None,
        role: Role = ONLY_VERSION,
    ) -> None:
        self._kafka = kafka
        self._role = role
        self._names = names = role.names
        self._rules = rules
        self._folder = folder
        self._max_due_rows = max_due_rows
        self._clock = clock
        self._beat = beat
        self._metrics = metrics or ContextMetrics(CollectorRegistry())
        cache = RowCache(CACHED_ROWS)
        self._posts = Table(post_table(rules, names), cache)
        self._members = Table(member_table(rules, names), cache)
        # The time and the outputs of the current batch.
        self._now_us = Micros(0)
        self._outputs: list[Output] = []
        # Since the last log line, for each cause: how many records were not applied, or not fully. Dead letters are
        # counted too.
        self._not_applied: Counter[str] = Counter()
        self._not_applied_in_batch: Counter[str] = Counter()
        self._logged_at = time.monotonic()
        self._wrong_partition = RecordsInWrongPartition(kafka.partitions, self._metrics.misplaced)
        self._apply: dict[str, Callable[[Message], None]] = {
            topics.POSTS: self._apply_post_event,
            topics.MEMBERS: self._apply_member_event,
            topics.ACTIVITY: self._forward_activity,
            names.activity_by_post: self._apply_post_activity,
            names.actions_by_member: self._apply_member_action,
            topics.REPUBLISH: self._apply_republish,
        }
        for name, recorded in topics.recorded_inputs(role.version).items():
            self._apply[recorded] = self._apply[name]

    def on_assigned(self, committed_offsets: Mapping[Place, Offset | None]) -> None:
        partitions = sorted({place.partition for place in committed_offsets})
        if not partitions:
            return
        changelogs = self._names.changelogs
        changelog_ids = topic_ids(self._kafka, changelogs)
        posts, members = (
            [RowStore(self._folder, Place(topic, number), changelog_ids[topic]) for number in partitions]
            for topic in changelogs
        )
        restore(self._kafka, [*posts, *members], self._beat)
        for store in (*posts, *members):
            refuse_lost_offsets(store, committed_offsets, self._names.group)
        for store in posts:
            self._posts.open(store)
        for store in members:
            self._members.open(store)
        self._measure_tables()
        self._measure_compaction()

    def on_revoked(self, places: Sequence[Place]) -> None:
        partitions = {place.partition for place in places}
        self._posts.close(partitions)
        self._members.close(partitions)
        self._measure_tables()

    def compact_if_due(self, interval_s: float) -> None:
        """Purges erased cells from the files of every store whose last compaction was `interval_s` ago. Then deletes
        whole row stores on this machine that nobody has compacted for twice that time: their partitions have moved to
        other workers. May run in any thread."""
        self._posts.compact_if_due(interval_s)
        self._members.compact_if_due(interval_s)
        self._measure_compaction()
        # Only while this worker's own stores are open: before its first assignment they could look abandoned. RocksDB
        # refuses to remove an open store.
        if self._posts.num_open and self._members.num_open:
            remove_abandoned(self._folder.parent, 2 * interval_s)

    def rewind(self, offsets: Mapping[Place, Offset]) -> list[Output]:
        """Stores these offsets with the rows as well. Otherwise the rows' offsets would be higher than the group's, and
        the next start would conclude that the group has lost its offsets (`counted_offsets.py`)."""
        self._begin_batch()
        return self._finish_batch(offsets)

    def due_outputs(self, records: Sequence[Message]) -> list[Output] | None:
        """Delayed publications that are due, and waiting actions that are given up. If `records` holds a flush record,
        everything that its partition delayed before this batch is due now. What the batch itself delays is published
        by `process`."""
        self._begin_batch()
        flushed = _flushed_partitions(records)
        due_posts = list(self._posts.due(self._now_us, flushed, self._max_due_rows))
        due_members = list(self._members.due(self._now_us, flushed, self._max_due_rows))
        if not due_posts and not due_members:
            return None
        for partition, post_id in due_posts:
            self._process_due_post(partition, post_id, flushed)
        for partition, member_id in due_members:
            self._members.mark_for_publication(partition, member_id, origin=None)
        # If the rows that `due` listed give no output, return None. With an empty list the loop would commit an empty
        # transaction, ask again, be given the same rows, and never stop.
        return self._finish_batch({}) or None

    def process(self, records: Sequence[Message], offsets_to_commit: OffsetsToCommit) -> Processed:
        self._begin_batch()
        num_records = 0
        while num_records < len(records) and len(self._outputs) < MAX_OUTPUTS:
            self._apply_record(records[num_records])
            num_records += 1
        self._metrics.read(Counter(record.topic() or "" for record in records[:num_records]))
        for partition in _flushed_partitions(records[:num_records]):
            self._posts.publish_delayed_now(partition)
            self._members.publish_delayed_now(partition)
        return Processed(self._finish_batch(offsets_to_commit(records[num_records:])), num_records)

    def on_committed(self, last_written: Mapping[Place, Offset]) -> None:
        def last_offset(changelog: str, partition: Partition) -> Offset | None:
            return last_written.get(Place(changelog, partition))

        self._posts.on_committed(last_offset)
        self._members.on_committed(last_offset)
        self._measure_tables()
        self._log_not_applied()
        self._wrong_partition.log_new()

    def _measure_tables(self) -> None:
        self._metrics.table_sizes("post", self._posts.num_delayed_publications, self._posts.estimated_num_cells)
        self._metrics.table_sizes("member", self._members.num_delayed_publications, self._members.estimated_num_cells)

    def _measure_compaction(self) -> None:
        self._metrics.compacted(min(self._posts.compacted_at_s(), self._members.compacted_at_s()))

    def _begin_batch(self) -> None:
        self._now_us = self._clock()
        self._outputs = []

    def _finish_batch(self, offsets: Mapping[Place, Offset]) -> list[Output]:
        """Returns all outputs of the batch. `_outputs` already holds the hops, dead letters and moved records. Publish
        first, then write the changelog: publishing changes rows (revision, due time), and the changelog must hold
        that."""
        for table in (self._posts, self._members):
            self._publish(table)
            self._outputs += table.changelog_records(offset_cells(offsets, table.spec.changelog, self._names))
        self._metrics.not_applied(self._not_applied_in_batch)
        self._not_applied_in_batch.clear()
        return self._outputs

    def _publish(self, table: Table[Any]) -> None:
        contexts = list(table.publish(self._now_us))
        self._outputs += contexts
        put_off = sum(context.headers is None for context in contexts)
        kind: Kind = "post" if table is self._posts else "member"
        self._metrics.published(kind, at_once=len(contexts) - put_off, put_off=put_off)

    def _note_not_applied(self, cause: str) -> None:
        self._not_applied[cause] += 1
        self._not_applied_in_batch[cause] += 1

    def _apply_record(self, record: Message) -> None:
        try:
            moved_record = self._wrong_partition.moved(record)
            if moved_record is None:
                self._apply[record.topic() or ""](record)
            elif not self._role.leaves_moving(place_of(record), offset_of(record)):
                self._outputs.append(moved_record)
        except BadRecord as error:
            kind: DeadLetterKind = "not_json" if isinstance(error, NotJson) else "bad_record"
            self._add_dead_letter(dead_letter_record(STAGE, record, str(error), kind))

    def _add_dead_letter(self, letter: Output) -> None:
        self._note_not_applied("dead-letter")
        if self._role.sends_dead_letters():
            self._outputs.append(letter)

    def _apply_post_event(self, record: Message) -> None:
        event = cast(PostEvent, _decode(topics.POSTS, record))
        order = event_order(event, record.value() or b"")
        partition, post_id = _partition(record), event.post_id
        change = apply_post_event(self._posts[partition][post_id], event, order, self._now_us, self._rules)
        self._apply_change(self._posts, partition, post_id, change, _itself(record))

    def _apply_member_event(self, record: Message) -> None:
        event = cast(MemberEvent, _decode(topics.MEMBERS, record))
        order = event_order(event, record.value() or b"")
        partition, member_id = _partition(record), event.member_id
        change = apply_member_event(self._members[partition][member_id], event, order)
        self._apply_change(self._members, partition, member_id, change, _itself(record))

    def _forward_activity(self, record: Message) -> None:
        """Passes the activity on to the partition of its post, and changes no row."""
        event = cast(Activity, _decode(topics.ACTIVITY, record))
        source = _partition(record), offset_of(record)
        payload = PostActivity(MemberId(event.member_id), event.action, event_time_us(event), event.dwell_ms, *source)
        self._add_hops((Hop(event.post_id, payload),), _itself(record))

    def _apply_post_activity(self, record: Message) -> None:
        activity = decode_post_activity(record.value() or b"")
        partition, post_id = _partition(record), _entity_id(record)
        change = apply_activity(self._posts[partition][post_id], activity, self._now_us, self._rules)
        self._apply_change(self._posts, partition, post_id, change, _origin(record))
        self._add_dead_letters(change.given_up)

    def _apply_member_action(self, record: Message) -> None:
        action = decode_member_action(record.value() or b"")
        partition, member_id = _partition(record), _entity_id(record)
        change = apply_member_action(self._members[partition][member_id], action, self._now_us, self._rules)
        self._apply_change(self._members, partition, member_id, change, _origin(record))

    def _apply_republish(self, record: Message) -> None:
        """Publishes the post and the member with this key again. A record without a key may be a flush, which
        `due_outputs` and `process` handle."""
        if record.key():
            for table in (self._posts, self._members):
                table.mark_for_republication(_partition(record), _entity_id(record), _itself(record))

    def _apply_change(
        self,
        table: Table[Any],
        partition: Partition,
        entity_id: str,
        change: PostChange | MemberChange,
        origin: Origin,
    ) -> None:
        if change.skipped_because:
            self._note_not_applied(change.skipped_because)
        table[partition][entity_id] = change.row
        if change.hops:
            self._add_hops(change.hops, origin)
        if change.publish:
            table.mark_for_publication(partition, entity_id, origin)

    def _process_due_post(self, partition: Partition, post_id: str, flushed: frozenset[Partition]) -> None:
        """A post is due when its delayed counts must be published, or when an action has waited too long for it."""
        rows = self._posts[partition]
        change = expire_waiting(rows[post_id], self._now_us, self._rules)
        if change.given_up:
            rows[post_id] = change.row
            self._add_dead_letters(change.given_up)
        publish_us = change.row.state.publish_due_us
        if publish_us is not None and (publish_us <= self._now_us or partition in flushed):
            self._posts.mark_for_publication(partition, post_id, origin=None)

    def _add_hops(self, hops: Iterable[Hop], origin: Origin) -> None:
        headers = with_origin(origin)
        for hop in hops:
            is_action = isinstance(hop.payload, MemberAction)
            topic = self._names.actions_by_member if is_action else self._names.activity_by_post
            self._outputs.append(Output(topic, hop.entity_id.encode(), encode_hop(hop.payload), headers))

    def _add_dead_letters(self, given_up: Iterable[GivenUpAction]) -> None:
        for action in given_up:
            self._add_dead_letter(given_up_action_record(action))

    def _log_not_applied(self) -> None:
        """Logs from time to time how many records were not applied since the last log line, by cause."""
        if self._not_applied and time.monotonic() > self._logged_at + _LOG_EVERY_S:
            log.info("skipped", **self._not_applied)
            self._not_applied.clear()
            self._logged_at = time.monotonic()


def _decode(topic: str, record: Message) -> Event:
    return decode_event(topic, record.key(), record.value(), _timestamp(record))


def _partition(record: Message) -> Partition:
    return Partition(record.partition() or 0)


def _entity_id(record: Message) -> str:
    """Raises BadRecord."""
    try:
        return (record.key() or b"").decode()
    except UnicodeDecodeError as error:
        raise BadRecord("the key is not UTF-8; use the id of a post or a member") from error


def _timestamp(record: Message) -> Millis:
    return Millis(record.timestamp()[1])


def _itself(record: Message) -> Origin:
    """An input record is where all that follows from it comes from."""
    return Origin(_timestamp(record), traces.passed(STAGE, record, begins=True))


def _origin(record: Message) -> Origin:
    """The input record that caused this hop; the hop itself if it carries none."""
    origin_ms = read_origin_ms(record)
    return Origin(_timestamp(record) if origin_ms is None else origin_ms, traces.passed(STAGE, record))


def _flushed_partitions(records: Sequence[Message]) -> frozenset[Partition]:
    """The partitions with a flush record."""
    return frozenset(
        _partition(record)
        for record in records
        if record.topic() == topics.REPUBLISH and topics.FLUSH_HEADER in dict(headers_of(record))
    )
