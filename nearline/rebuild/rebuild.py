"""Rebuilds the contexts: a new version of rows and context topics, made of the inputs from their start, or of exported
files and then of the inputs.

The work itself is done by the context processes of the new version, wherever they run. The version that serves is not
touched. Every step can be repeated, and a command that was killed between any two of them goes on when it is repeated.
"""

import math
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from confluent_kafka import TopicPartition

from contexts.settings import ContextRules
from nearline.generations.retiring import LEAVE_S, remove_unread_contexts
from nearline.rebuild.check import Versions, check
from nearline.rebuild.files import clear, coverage, load, refuse_gaps
from schemas.generations import ContextsRecord, Gate
from schemas.ids import ContextVersion, Offset
from schemas.stages import contexts_reads
from schemas.topics import INPUTS, REPUBLISH, context_topics
from streams.errors import ActRefused, KafkaUnavailable, TooLittleLeft
from streams.generations import contexts_acts as acts
from streams.generations.contexts_acts import By
from streams.generations.log import change_generations, read_generations
from streams.kafka.group_offsets import set_offsets
from streams.kafka.offsets import OffsetReader, Offsets
from streams.kafka.records import Place
from streams.kafka.topics import ensure_topics
from streams.operate.wait import Progress, Wait
from streams.settings import KafkaSettings

SETTLE_S: Final = 60.0
"""How long an event may be under way while the two versions are compared."""
_ASK_S: Final = 20.0
_EMPTY_S: Final = 30.0
_LOOK_EVERY_S: Final = 2.0

Report = Callable[[Progress], None]


def begin(kafka: KafkaSettings, by: By, files: Path | None = None, *, force: bool = False) -> ContextVersion:
    """Prepares a version, or goes on with the one that was begun, and returns when its processes may start. `files`: a
    folder of exported events, if the topics do not reach back. By force it does without events that are in neither.
    Raises TooLittleLeft where some are, ActRefused, BadFile, StreamsError."""
    if force:
        acts.refuse_force_without_reason(by)
    # 1. Claim a version in the log, and say from where it is built. Another operator can only go on with the same.
    record = _claim(kafka, by, files, force=force)
    if record.is_prepared:
        return record.version
    # 2. The topics, which the processes of the version expect to exist.
    ensure_topics(kafka, context_topics(record.version))
    # 3. Where its group begins. Without offsets nobody would notice what is deleted before it is read.
    _set_begin(kafka, record)
    # 4. The events of the files.
    if record.files:
        load(kafka, record.version, Path(record.files), _places(record.begins))
    # 5. Only now `nearline up` and `nearline run contexts` start its processes.
    goal = _by_topic(_ends(kafka))
    change_generations(kafka, lambda state: acts.prepared(state, record.version, goal, by))
    return record.version


def compare(
    kafka: KafkaSettings,
    version: ContextVersion,
    rules: ContextRules,
    by: By,
    report: Report,
    *,
    force: bool = False,
) -> Gate:
    """Waits until both versions have applied all events of now, compares them, and writes down what it has found. By
    force it does not wait for the old one, whose stage may stand still because its rows are damaged. Raises ActRefused
    if the version is given up meanwhile, StreamsError."""
    state = read_generations(kafka)
    assert state.serving is not None, "a version is built only beside one that serves"
    versions = Versions(state.serving.contexts, version)
    watch = _Watch(kafka, version, report)
    waited_for = (version,) if force else versions
    Wait(kafka, state.serving.id, lambda: None, watch.report, timeout_s=math.inf).run_contexts(waited_for)
    # The events of files are applied by now. They would outlive the retention of the inputs.
    clear(kafka, version)
    found = Gate(datetime.now(UTC), check(kafka, versions, rules, SETTLE_S))
    change_generations(kafka, lambda state: acts.checked(state, version, found, by, force=force))
    return found


def drop(kafka: KafkaSettings, by: By, leave_s: float = LEAVE_S) -> ContextVersion | None:
    """Gives up the version that no generation reads yet, and removes all that is left of it. None if there is none.
    Raises StillFed, StreamsError."""
    coming = read_generations(kafka).coming_contexts
    if coming is not None:
        change_generations(kafka, lambda state: acts.drop(state, coming.version, by))
    remove_unread_contexts(kafka, leave_s)
    return None if coming is None else coming.version


class _Watch:
    """Ends the wait for a version that is not wanted any more."""

    def __init__(self, kafka: KafkaSettings, version: ContextVersion, report: Report) -> None:
        self._kafka = kafka
        self._version = version
        self._report = report
        self._due_at = 0.0

    def report(self, progress: Progress) -> None:
        self._report(progress)
        if time.monotonic() < self._due_at:
            return
        self._due_at = time.monotonic() + _LOOK_EVERY_S
        try:
            coming = read_generations(self._kafka).coming_contexts
        except KafkaUnavailable:
            return  # the wait itself waits out an outage
        if coming is None or coming.version != self._version:
            raise ActRefused(
                f"version {self._version} of the contexts was given up while it was built, or a generation has taken "
                "it over; look at: nearline generations list"
            )


def _claim(kafka: KafkaSettings, by: By, files: Path | None, *, force: bool) -> ContextsRecord:
    state = read_generations(kafka)
    coming = state.coming_contexts
    if coming is not None:
        acts.rebuild(state, coming.version, {}, by, coming.files if files is None else str(files.absolute()))
        return coming
    # What an earlier version has left. If a command was killed, nobody else may have removed it.
    remove_unread_contexts(kafka)
    version = acts.next_version(state)
    folder = "" if files is None else str(files.absolute())
    # Refused before anything is looked at: nothing serves.
    acts.rebuild(state, version, {}, by, folder)
    begins = _by_topic(_begins(kafka, files, force=force))
    state = change_generations(kafka, lambda state: acts.rebuild(state, version, begins, by, folder))
    assert state.coming_contexts is not None, "the act has added it, or found it"
    return state.coming_contexts


def _begins(kafka: KafkaSettings, files: Path | None, *, force: bool) -> Offsets:
    """The offsets from which on the inputs are read. What is before them is in the files."""
    with closing(OffsetReader(kafka, _ASK_S)) as reader:
        starts, ends = reader.bounds(INPUTS)
    if files is None:
        _refuse_shortened(starts)
        return starts
    reaches, gaps = coverage(files, starts, ends)
    if not force:
        refuse_gaps(files, gaps)
    return reaches


def _refuse_shortened(starts: Offsets) -> None:
    deleted = {place: start for place, start in sorted(starts.items()) if start > 0}
    if deleted:
        words = ", ".join(f"{number} of {place.topic}-{place.partition}" for place, number in deleted.items())
        raise TooLittleLeft(
            f"the topics no longer reach back to the first event ({words} deleted by retention), so contexts made of "
            "them would be short of these; rebuild them from all that was exported: nearline rebuild contexts "
            "--from FILES"
        )


def _set_begin(kafka: KafkaSettings, record: ContextsRecord) -> None:
    """Where its group begins: in the inputs as the log says, in its own topics at the start. What was to be published
    again by now is published anyway. Can be repeated: what is committed already stays."""
    reads = contexts_reads(record.version)
    with closing(OffsetReader(kafka, _ASK_S)) as reader:

        def missing() -> list[TopicPartition]:
            committed = reader.committed(reads.group, reader.places(reads.topics))
            _, ends = reader.bounds([REPUBLISH])
            begins = {**_places(record.begins), **ends}
            return [
                TopicPartition(*place, begins.get(place, Offset(0)))
                for place, offset in committed.items()
                if offset is None
            ]

        if missing():
            set_offsets(kafka, reads.group, missing, _EMPTY_S)


def _ends(kafka: KafkaSettings) -> Offsets:
    with closing(OffsetReader(kafka, _ASK_S)) as reader:
        return reader.bounds((*INPUTS, REPUBLISH))[1]


def _by_topic(offsets: Offsets) -> acts.Goal:
    """As the log has them."""
    by_topic: acts.Goal = {}
    for (topic, partition), offset in offsets.items():
        by_topic.setdefault(topic, {})[partition] = offset
    return by_topic


def _places(by_topic: acts.Goal) -> Offsets:
    return {
        Place(topic, partition): offset for topic, offsets in by_topic.items() for partition, offset in offsets.items()
    }
