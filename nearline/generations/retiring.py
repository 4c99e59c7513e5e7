"""Removes what retired generations have: groups, collections or folders, and at last topics. Also what a build has made
that was refused or killed.

Processes that work for a generation leave by themselves when it is retired. Every step can be repeated, and a command
that is repeated after a crash between any two of them goes on.
"""

import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Final

from nearline.generations.local_files import remove_local_files
from nearline.generations.packages import remove_fetched
from nearline.settings.settings import Settings
from schemas.generations import GenerationRecord
from schemas.ids import Generation
from streams.errors import ActRefused, StillFed
from streams.generations.acts import known
from streams.generations.log import read_generations
from streams.generations.removal import delete_contexts, delete_groups, delete_topics, has_topics
from streams.kafka.crash_points import crash_point
from streams.kafka.offsets import OffsetReader
from streams.settings import KafkaSettings

LEAVE_S: Final = 90.0
"""How long its processes may take to leave. A killed one is in its group for some seconds, and one that encodes with a
large model finishes its batch."""
_PAUSE_S: Final = 0.2


def remove_retired(
    settings: Settings, kafka: KafkaSettings, record: GenerationRecord, leave_s: float = LEAVE_S
) -> None:
    """Returns when nothing is left of it in Kafka, on the Qdrant server, and in this data folder. Other machines remove
    their own folders. Before each step it asks whether the generation was built again: then the rest stays. Raises
    ActRefused if it was, StillFed, StreamsError, IndexerError."""
    generation = record.id
    # 1. The groups, as soon as no process works for it any more.
    _refuse_if_built_again(kafka, record)
    try:
        delete_groups(kafka, generation, leave_s)
    finally:
        # Processes that have not left may work for what was built again.
        _refuse_if_built_again(kafka, record)
    # 2. What it has in the cold tier, and its package.
    if settings.cold.url is not None:
        from indexer.cold.qdrant.collections import delete_collections

        delete_collections(settings.cold, generation)
    _remove_files(settings, kafka, record, leave_s)
    crash_point("generations.files-removed")
    # 3. The topics. While they are there, something may be left.
    _refuse_if_built_again(kafka, record)
    delete_topics(kafka, generation)
    # 4. What versions of the contexts have that nobody reads any more.
    remove_unread_contexts(kafka, leave_s)


def remove_unread_contexts(kafka: KafkaSettings, leave_s: float = LEAVE_S) -> None:
    """Removes the groups and topics of retired versions of the contexts. Their rows on each machine are removed by
    whoever runs the context stage there. Can be repeated. Raises StillFed, StreamsError."""
    retired = [record.version for record in read_generations(kafka).contexts.values() if record.state == "retired"]
    for version in retired:
        if has_topics(kafka, version):
            delete_contexts(kafka, version, leave_s)


def _refuse_if_built_again(kafka: KafkaSettings, record: GenerationRecord) -> None:
    newest = known(read_generations(kafka), record.id)
    if newest.state != "retired" or newest.life != record.life:
        raise ActRefused(
            f"the generation {record.id} was built again while what it had before was removed, so the rest stays; look "
            f"at: nearline generations show {record.id}"
        )


def _remove_files(settings: Settings, kafka: KafkaSettings, record: GenerationRecord, leave_s: float) -> None:
    deadline = time.monotonic() + leave_s
    while not remove_local_files(settings.data_dir, record):
        if time.monotonic() > deadline:
            raise StillFed.of_generation(record.id, ["the cold tier's folder"], leave_s)
        time.sleep(_PAUSE_S)
        _refuse_if_built_again(kafka, record)


def remove_left_behind(settings: Settings, kafka: KafkaSettings, only: Generation | None = None) -> None:
    """Removes what retired generations have left: another build retired them, or a command was killed. `only`: what
    this one has left. One that is built again meanwhile is left alone. Raises StillFed, StreamsError, IndexerError."""
    remove_unread_contexts(kafka)
    state = read_generations(kafka)
    with closing(OffsetReader(kafka)) as reader:
        with_topics = reader.generations()
    for generation in with_topics if only is None else {only}.intersection(with_topics):
        record = state.records.get(generation)
        if record is not None and record.state == "retired":
            with suppress(ActRefused):
                remove_retired(settings, kafka, record)


def remove_unbuilt(settings: Settings, kafka: KafkaSettings, generation: Generation) -> bool:
    """Removes what a build has made before the log says that it builds: topics, and the package that it fetched. For a
    build that was refused, or was killed and is not wanted any more. Returns False if there is nothing to remove, or
    the generation lives. Raises StreamsError."""
    state = read_generations(kafka)
    if generation in {record.id for record in state.live}:
        return False
    with closing(OffsetReader(kafka)) as reader:
        # Before anything was founded they are those of an earlier version, whose generation will be founded.
        are_topics_made = state.pointer is not None and generation in reader.generations()
    if are_topics_made:
        delete_topics(kafka, generation)
    is_package_removed = remove_fetched(settings.data_dir, generation, datetime.now(UTC))
    return are_topics_made or is_package_removed
