"""Compares the rows of a rebuilt version of the contexts with those of the version that serves.

Compared is what the events say, not what depends on the order in which posts and members met: of a post its newest
event, its body and its counts; of a member its newest event, its profile, the (post, action, time) of its history and
the posts that it has hidden. Texts in histories are those of the moment, so they may differ.

Events go on coming in meanwhile: what differs is read again until it agrees, or a time is over.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from typing import Final, Generic, NamedTuple, TypeVar

from contexts.cells import GetCell, load_member, load_post
from contexts.rows import MemberRow, PostRow
from contexts.settings import ContextRules
from nearline.gate.figures import at_most, examples
from nearline.rebuild.rows import ChangelogRows
from schemas.contexts import HistoryEntry
from schemas.generations import GateFigure
from schemas.ids import ContextVersion, MemberId, PostId
from schemas.stages import contexts_reads
from schemas.topics import REPUBLISH, ContextNames, context_names
from streams.kafka.offsets import OffsetReader
from streams.kafka.records import Place
from streams.operate.lag import deleted_unread
from streams.settings import KafkaSettings

_PAUSE_S: Final = 0.2
_ASK_S: Final = 20.0
OLD_IS_DAMAGED: Final = "cannot be read in the old rows"
NEW_IS_DAMAGED: Final = "cannot be read in the new rows"

_Row = TypeVar("_Row", PostRow, MemberRow)


class Versions(NamedTuple):
    old: ContextVersion
    new: ContextVersion


class Finding(NamedTuple):
    """Of one kind of entity: what differs, by id."""

    num_compared: int
    differences: dict[str, str]
    unreadable: list[str]
    """Their old row is damaged, so the new one can only be better."""


def check(kafka: KafkaSettings, versions: Versions, rules: ContextRules, settle_s: float) -> list[GateFigure]:
    """Both versions must have applied all events of a moment ago. `settle_s`: how long a change may be under way, for
    each partition. Raises StreamsError."""
    posts = _compare(kafka, versions, _POSTS, settle_s)
    members = _compare(kafka, versions, _members(rules), settle_s)
    return [_figure("post", posts), _figure("member", members), _deleted_unread(kafka, versions.new)]


def post_difference(old: PostRow, new: PostRow) -> str | None:
    if old.state.order != new.state.order:
        return "another newest event"
    if old.body != new.body:
        return "another body"
    return "other counts" if _nonzero(old.state.counts) != _nonzero(new.state.counts) else None


def member_difference(old: MemberRow, new: MemberRow, history_entries: int) -> str | None:
    """`history_entries`: so many a history may hold."""
    if (old.state.order, old.state.deleted) != (new.state.order, new.state.deleted):
        return "another newest event"
    if old.profile != new.profile:
        return "another profile"
    if _differ(old.history.entries(), new.history.entries(), history_entries):
        return "another history"
    was_shortened = old.hidden.start or new.hidden.start
    is_other = not was_shortened and set(old.hidden.newest()) != set(new.hidden.newest())
    return "other hidden posts" if is_other else None


def _nonzero(counts: dict[str, int]) -> dict[str, int]:
    return {action: number for action, number in counts.items() if number}


def _differ(old: Sequence[HistoryEntry], new: Sequence[HistoryEntry], most: int) -> bool:
    """A full history drops its oldest entries, and when one of its posts is deleted they do not come back: so how far
    back it reaches depends on the order in which events came. Nothing in a row says whether its history was ever full;
    one that is at least half full may have been. Then only what both reach back to is compared."""
    since_us = max((entries[0].at_us for entries in (old, new) if entries), default=0)
    if 2 * max(len(old), len(new)) < most or not (old and new):
        since_us = 0
    return _keys(old, since_us) != _keys(new, since_us)


def _keys(entries: Iterable[HistoryEntry], since_us: int) -> set[tuple[int, str, str]]:
    return {(entry.at_us, entry.post_id, entry.action) for entry in entries if entry.at_us >= since_us}


class _Kind(NamedTuple, Generic[_Row]):
    """How the rows of one kind are read and compared."""

    changelog: Callable[[ContextNames], str]
    load: Callable[[str, GetCell], _Row]
    difference: Callable[[_Row, _Row], str | None]


_POSTS: Final = _Kind[PostRow](
    lambda names: names.post_changelog, lambda post_id, get: load_post(PostId(post_id), get), post_difference
)


def _members(rules: ContextRules) -> _Kind[MemberRow]:
    return _Kind[MemberRow](
        lambda names: names.member_changelog,
        lambda member_id, get: load_member(MemberId(member_id), get),
        partial(member_difference, history_entries=rules.history_entries),
    )


def _compare(kafka: KafkaSettings, versions: Versions, rows: _Kind[_Row], settle_s: float) -> Finding:
    """One partition after the other, because all of them together may not fit into memory."""
    old_topic, new_topic = (rows.changelog(context_names(version)) for version in versions)
    with closing(OffsetReader(kafka, _ASK_S)) as reader:
        partitions = [place.partition for place in reader.places([new_topic])]
    num_compared = 0
    differences: dict[str, str] = {}
    unreadable: list[str] = []
    for partition in partitions:
        old, new = (ChangelogRows(kafka, Place(topic, partition), rows.load) for topic in (old_topic, new_topic))
        found = _compare_partition(old, new, rows.difference, settle_s)
        num_compared += found.num_compared
        differences.update(found.differences)
        unreadable += found.unreadable
    return Finding(num_compared, differences, unreadable)


def _compare_partition(
    old: ChangelogRows[_Row],
    new: ChangelogRows[_Row],
    difference: Callable[[_Row, _Row], str | None],
    settle_s: float,
) -> Finding:
    deadline = time.monotonic() + settle_s
    ids: set[str] | None = None
    while True:
        old.read_on()
        new.read_on()
        num_compared = len(every := old.ids() | new.ids())
        unreadable = sorted(entity_id for entity_id in every if old.row(entity_id) is None)
        differences = {
            entity_id: words
            for entity_id in (every if ids is None else ids)
            if (words := _difference(old.row(entity_id), new.row(entity_id), difference)) is not None
        }
        if not differences or time.monotonic() > deadline:
            return Finding(num_compared, differences, unreadable)
        ids = set(differences)
        time.sleep(_PAUSE_S)


def _difference(old: _Row | None, new: _Row | None, difference: Callable[[_Row, _Row], str | None]) -> str | None:
    if new is None:
        return NEW_IS_DAMAGED
    return None if old is None else difference(old, new)


def _figure(kind: str, finding: Finding) -> GateFigure:
    words = [f"{finding.num_compared} {kind}s compared"]
    for what in sorted(set(finding.differences.values())):
        ids = sorted(entity_id for entity_id, words in finding.differences.items() if words == what)
        words.append(f"{len(ids)}: {what}, such as {examples(ids)}")
    if finding.unreadable:
        number, named = len(finding.unreadable), examples(finding.unreadable)
        words.append(f"{number} {OLD_IS_DAMAGED}, such as {named}; the new ones take their place")
    return at_most(f"{kind}s that differ", len(finding.differences), 0, "; ".join(words))


def _deleted_unread(kafka: KafkaSettings, version: ContextVersion) -> GateFigure:
    """Retention goes on while the inputs are read."""
    reads = contexts_reads(version)
    with closing(OffsetReader(kafka, _ASK_S)) as reader:
        places = reader.places(topic for topic in reads.topics if topic != REPUBLISH)
        deleted = deleted_unread(reader.progress(reads.group, places), reader.starts(places))
    words = ", ".join(f"{number} of {place.topic}-{place.partition}" for place, number in sorted(deleted.items()))
    mend = f"{words}; rebuild from exported files: --drop, and then --from FILES" if words else ""
    return at_most("records deleted before they were read", sum(deleted.values()), 0, mend)
