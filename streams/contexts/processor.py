"""What the context stage does with a batch: which row a record belongs to, and what of it is sent on.

What an event does to a row is decided in `contexts/`; when things are sent and committed, in the transactional loop.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import structlog
from confluent_kafka import Message

from contexts.cells import due_us, load_member, load_post, member_cells, member_due, post_cells, post_due
from contexts.members import apply_member_action, apply_member_event, publish_member
from contexts.posts import apply_activity, apply_post_event, expire_waiting, publish_post
from contexts.rows import Hop, MemberChange, MemberRow, PostChange, PostRow, Unplaced
from contexts.settings import ContextRules
from schemas import topics
from schemas.errors import BadRecord
from schemas.events import Activity, Event, MemberEvent, PostEvent, decode_event, event_order, event_time_us
from schemas.headers import headers_of, origin_ms
from schemas.hops import MemberAction, PostActivity, decode_member_action, decode_post_activity, encode_hop
from schemas.ids import MemberId, Micros, Millis, Offset, Partition, PostId
from streams.contexts.context_tables import KindForm, KindTables
from streams.contexts.counted_offsets import position_cells, refuse_lost_offsets
from streams.contexts.kept_rows import KeptRows
from streams.contexts.misplaced import Misplaced
from streams.contexts.restore import restore, topic_ids
from streams.contexts.rows import TablePartition, remove_abandoned
from streams.contexts.tables import RowForm
from streams.kafka.dead_letters import dead_letter_record, unplaced_record
from streams.kafka.heartbeat import Beat, no_beat
from streams.kafka.records import Output, Place, offset_of
from streams.kafka.transactional_loop import OffsetsBefore, Processed
from streams.settings import KafkaSettings

STAGE: Final = "contexts"
CHANGELOGS: Final = (topics.POST_CHANGELOG, topics.MEMBER_CHANGELOG)

MOST_HOPS: Final = 50_000
"""Of one transaction, about: a deleted post is taken out of up to a thousand histories, and a batch of thousands of
deletes would take longer than a transaction may."""
_SAY_EVERY_S: Final = 30.0

log = structlog.get_logger(__name__)


def post_form(rules: ContextRules) -> KindForm[PostRow]:
    rows = RowForm(
        lambda entity_id, get: load_post(PostId(entity_id), get), post_cells, post_due, partial(due_us, rules=rules)
    )
    return KindForm(rows, topics.POST_CHANGELOG, topics.POST_CONTEXTS, publish_post)


def member_form(rules: ContextRules) -> KindForm[MemberRow]:
    rows = RowForm(
        lambda entity_id, get: load_member(MemberId(entity_id), get),
        member_cells,
        member_due,
        partial(due_us, rules=rules),
    )
    return KindForm(rows, topics.MEMBER_CHANGELOG, topics.MEMBER_CONTEXTS, partial(publish_member, rules=rules))


class ContextProcessor:
    """Plugs into the transactional loop. `now_us` is the clock of windows and due times."""

    def __init__(
        self,
        kafka: KafkaSettings,
        rules: ContextRules,
        folder: Path,
        due_at_once: int,
        now_us: Callable[[], Micros],
        *,
        beat: Beat = no_beat,
    ) -> None:
        self._kafka = kafka
        self._rules = rules
        self._folder = folder
        self._due_at_once = due_at_once
        self._clock = now_us
        self._beat = beat
        kept = KeptRows()
        self._posts = KindTables(post_form(rules), kept)
        self._members = KindTables(member_form(rules), kept)
        # Of the batch in work.
        self._now_us = Micros(0)
        self._outputs: list[Output] = []
        self._notes: Counter[str] = Counter()
        self._misplaced = Misplaced(kafka.partitions)
        self._said_at = time.monotonic()
        self._apply: dict[str, Callable[[Message], None]] = {
            topics.POSTS: self._apply_post_event,
            topics.MEMBERS: self._apply_member_event,
            topics.ACTIVITY: self._apply_activity,
            topics.ACTIVITY_BY_POST: self._apply_post_activity,
            topics.ACTIONS_BY_MEMBER: self._apply_member_action,
            topics.REPUBLISH: self._apply_republish,
        }

    def assigned(self, committed: Mapping[Place, Offset | None]) -> None:
        partitions = sorted({place.partition for place in committed})
        if not partitions:
            return
        log_ids = topic_ids(self._kafka, CHANGELOGS)
        posts, members = (
            [TablePartition(self._folder, Place(topic, number), log_ids[topic]) for number in partitions]
            for topic in CHANGELOGS
        )
        restore(self._kafka, [*posts, *members], self._beat)
        for stored in (*posts, *members):
            refuse_lost_offsets(stored, committed)
        for stored in posts:
            self._posts.open(stored)
        for stored in members:
            self._members.open(stored)

    def revoked(self, places: Sequence[Place]) -> None:
        partitions = {place.partition for place in places}
        self._posts.close(partitions)
        self._members.close(partitions)

    def shed(self, age_s: float) -> None:
        """Takes what was erased out of the files of the rows, where that was not done for so long. From any thread."""
        if self._posts.shed(age_s) and self._members.shed(age_s):
            # Not before ours are open.
            remove_abandoned(self._folder.parent, 2 * age_s)

    def rewind(self, offsets: Mapping[Place, Offset]) -> list[Output]:
        """The rows have counted so far: else the next start would take the group's offsets for lost."""
        self._begin()
        return self._finish(offsets)

    def due_outputs(self, records: Sequence[Message]) -> list[Output] | None:
        """Due publications and waiting actions whose time is up, so many of each partition at once."""
        self._begin()
        flushed = _flushed(records)
        due_posts = list(self._posts.due(self._now_us, flushed, self._due_at_once))
        due_members = list(self._members.due(self._now_us, flushed, self._due_at_once))
        if not due_posts and not due_members:
            return None
        for partition, post_id in due_posts:
            self._look_at_post(partition, post_id, flushed)
        for partition, member_id in due_members:
            self._members.want(partition, member_id, None)
        # A transaction without outputs would be no progress, and the next call would ask for it again.
        return self._finish({}) or None

    def process(self, records: Sequence[Message], offsets_before: OffsetsBefore) -> Processed:
        self._begin()
        num_records = 0
        while num_records < len(records) and len(self._outputs) < MOST_HOPS:
            self._apply_one(records[num_records])
            num_records += 1
        for partition in _flushed(records[:num_records]):
            self._posts.want_held_back(partition)
            self._members.want_held_back(partition)
        return Processed(self._finish(offsets_before(records[num_records:])), num_records)

    def committed(self, delivered: Mapping[Place, Offset]) -> None:
        def end(changelog: str, partition: Partition) -> Offset | None:
            return delivered.get(Place(changelog, partition))

        self._posts.committed(end)
        self._members.committed(end)
        self._say_notes()
        self._misplaced.say()

    def _begin(self) -> None:
        self._now_us = self._clock()
        self._outputs = []

    def _finish(self, offsets: Mapping[Place, Offset]) -> list[Output]:
        """Hops are sent already; then contexts, then what was changed, rows being at their last by then."""
        for tables in (self._posts, self._members):
            self._outputs += tables.publish(self._now_us)
            self._outputs += tables.changes(position_cells(offsets, tables.form.changelog))
        return self._outputs

    def _apply_one(self, record: Message) -> None:
        try:
            elsewhere = self._misplaced.sent_on(record)
            if elsewhere is None:
                self._apply[record.topic() or ""](record)
            else:
                self._outputs.append(elsewhere)
        except BadRecord as error:
            self._notes["dead-letter"] += 1
            self._outputs.append(dead_letter_record(STAGE, record, str(error)))

    def _apply_post_event(self, record: Message) -> None:
        event = cast(PostEvent, _decode(topics.POSTS, record))
        order = event_order(event, record.value() or b"")
        partition, post_id = _partition(record), event.post_id
        change = apply_post_event(self._posts[partition][post_id], event, order, self._now_us, self._rules)
        self._take(self._posts, partition, post_id, change, _timestamp(record))

    def _apply_member_event(self, record: Message) -> None:
        event = cast(MemberEvent, _decode(topics.MEMBERS, record))
        order = event_order(event, record.value() or b"")
        partition, member_id = _partition(record), event.member_id
        change = apply_member_event(self._members[partition][member_id], event, order)
        self._take(self._members, partition, member_id, change, _timestamp(record))

    def _apply_activity(self, record: Message) -> None:
        """The first hop, to the post; it touches no row."""
        event = cast(Activity, _decode(topics.ACTIVITY, record))
        place = _partition(record), offset_of(record)
        payload = PostActivity(MemberId(event.member_id), event.action, event_time_us(event), event.dwell_ms, *place)
        self._send_hops((Hop(event.post_id, payload),), _timestamp(record))

    def _apply_post_activity(self, record: Message) -> None:
        activity = decode_post_activity(record.value() or b"")
        partition, post_id = _partition(record), _entity_id(record)
        change = apply_activity(self._posts[partition][post_id], activity, self._now_us, self._rules)
        self._take(self._posts, partition, post_id, change, _origin(record))
        if change.unplaced:
            self._send_unplaced(change.unplaced)

    def _apply_member_action(self, record: Message) -> None:
        action = decode_member_action(record.value() or b"")
        partition, member_id = _partition(record), _entity_id(record)
        change = apply_member_action(self._members[partition][member_id], action, self._now_us, self._rules)
        self._take(self._members, partition, member_id, change, _origin(record))

    def _apply_republish(self, record: Message) -> None:
        """A key alone: whatever rows there are under it. Without a key it is a flush, or nothing."""
        if record.key():
            for tables in (self._posts, self._members):
                tables.want_again(_partition(record), _entity_id(record), _timestamp(record))

    def _take(
        self,
        tables: KindTables[Any],
        partition: Partition,
        entity_id: str,
        change: PostChange | MemberChange,
        origin_ms: Millis,
    ) -> None:
        if change.note:
            self._notes[change.note] += 1
        tables[partition][entity_id] = change.row
        if change.hops:
            self._send_hops(change.hops, origin_ms)
        if change.publish:
            tables.want(partition, entity_id, origin_ms)

    def _look_at_post(self, partition: Partition, post_id: str, flushed: frozenset[Partition]) -> None:
        """A post whose time has come: its counts wait to be published, or something has waited for it in vain."""
        table = self._posts[partition]
        change = expire_waiting(table[post_id], self._now_us, self._rules)
        if change.unplaced:
            table[post_id] = change.row
            self._send_unplaced(change.unplaced)
        publish_us = change.row.state.publish_due_us
        if publish_us is not None and (publish_us <= self._now_us or partition in flushed):
            self._posts.want(partition, post_id, None)

    def _send_hops(self, hops: Iterable[Hop], origin_ms: Millis) -> None:
        headers = [(topics.ORIGIN_HEADER, b"%d" % origin_ms)]
        for entity_id, payload in hops:
            topic = topics.ACTIONS_BY_MEMBER if isinstance(payload, MemberAction) else topics.ACTIVITY_BY_POST
            self._outputs.append(Output(topic, entity_id.encode(), encode_hop(payload), headers))

    def _send_unplaced(self, unplaced: Iterable[Unplaced]) -> None:
        for one in unplaced:
            self._notes["dead-letter"] += 1
            self._outputs.append(unplaced_record(one))

    def _say_notes(self) -> None:
        """What was skipped since the last time, now and then."""
        if self._notes and time.monotonic() > self._said_at + _SAY_EVERY_S:
            log.info("skipped", **self._notes)
            self._notes.clear()
            self._said_at = time.monotonic()


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


def _origin(record: Message) -> Millis:
    """Of the input record behind a hop; the hop's own timestamp where it does not say."""
    origin = origin_ms(record)
    return _timestamp(record) if origin is None else Millis(origin)


def _flushed(records: Sequence[Message]) -> frozenset[Partition]:
    """Partitions that are asked to hold nothing back."""
    return frozenset(
        _partition(record)
        for record in records
        if record.topic() == topics.REPUBLISH and topics.FLUSH_HEADER in dict(headers_of(record))
    )
