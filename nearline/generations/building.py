"""Builds a generation beside the serving one: finds its package, makes its topics, and says in the log what to build.

The work itself is done by the encode and cold processes of its place, wherever they run.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from encoders.package.model_package import ModelPackage
from nearline.errors import BadSettings
from nearline.generations.packages import checked_files, fetch_unless_here, in_registry
from schemas.generations import GenerationRecord, PackageSource, Record
from schemas.ids import ContextVersion, Generation
from schemas.topics import GENERATIONS, context_names, generation_topics
from streams.errors import ActRefused, StreamsError
from streams.generations import acts
from streams.generations.contexts_acts import version_to_build
from streams.generations.log import change_generations, read_generations
from streams.generations.progress import Progress, read_progress
from streams.generations.state import Generations
from streams.kafka.crash_points import crash_point
from streams.kafka.offsets import OffsetReader, Offsets
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings

_LOOK_EVERY_S: Final = 1.0


def name_package(name: str, registry: str | None) -> Generation:
    """The generation of a package: `name` is a folder, or a generation in the registry. Raises BadSettings,
    BadPackage."""
    folder = Path(name).absolute()
    if folder.is_dir():
        return ModelPackage.read(folder).generation
    if registry is None:
        raise BadSettings(
            f"{name} is no folder; to take a generation from a registry, name that with --registry or NEARLINE_REGISTRY"
        )
    return Generation(name)


def find_package(name: str, registry: str | None, data_dir: Path, *, fetch: bool) -> acts.Package:
    """The same package with every file checked. One in a registry is fetched into the data folder; without `fetch` it
    is checked where it lies. Raises BadPackage, BadRegistry."""
    folder = Path(name).absolute()
    if folder.is_dir() or registry is None:
        return load_package(Generation(name), PackageSource(folder=str(folder)), data_dir)
    if not fetch:
        return _check_in_registry(Generation(name), in_registry(registry))
    return load_package(Generation(name), in_registry(registry), data_dir)


def _check_in_registry(generation: Generation, source: PackageSource) -> acts.Package:
    # Imported here: most instances have no registry.
    from trainer.publishing.registry import Registry

    return acts.Package(generation, source, Registry(str(source.registry)).verify(generation).digest)


def load_package(generation: Generation, source: PackageSource, data_dir: Path) -> acts.Package:
    """The package that lies there, with every file checked. Raises BadPackage, BadRegistry."""
    if source.registry is not None:
        folder = fetch_unless_here(generation, source.registry, data_dir)
        crash_point("generations.package-fetched")
    else:
        folder = Path(source.folder or "")
    package = ModelPackage.load(folder, checked_files(data_dir))
    return acts.Package(package.generation, source, package.digest)


Build = Callable[[Generations, acts.Package, acts.Goal, acts.By], Sequence[Record]]
"""`acts.build`, or an act that holds more than that. Raises ActRefused."""


def start_building(
    kafka: KafkaSettings,
    package: acts.Package,
    by: acts.By,
    build: Build = acts.build,
    refuse_without_room: Callable[[Generations], None] | None = None,
) -> Generations:
    """Can be repeated: after a crash between any two steps the next call goes on. What an earlier life of the
    generation has left must be removed. `refuse_without_room` raises NoRoom; None builds by force, whether there is
    room or not. Raises ActRefused, NoRoom, StreamsError."""
    # 1. Refuse before anything is made. What lives already has its room.
    state = read_generations(kafka)
    build(state, package, {}, by)
    if refuse_without_room is not None and package.id not in {record.id for record in state.live}:
        refuse_without_room(state)
    # 2. The topics, which its processes expect to exist.
    ensure_topics(kafka, generation_topics(package.id))
    crash_point("generations.topics-made")
    # 3. The goal, and the act.
    goal = _ends_of_contexts(kafka, version_to_build(read_generations(kafka)))
    state = change_generations(kafka, lambda state: build(state, package, goal, by))
    # 4. The topics again. Until the log said that it lives, somebody may have removed what was left of it.
    ensure_topics(kafka, generation_topics(package.id))
    return state


def _ends_of_contexts(kafka: KafkaSettings, version: ContextVersion) -> acts.Goal:
    with closing(OffsetReader(kafka)) as reader:
        _, ends = reader.bounds(context_names(version).contexts)
    goal: acts.Goal = {}
    for (topic, partition), end in ends.items():
        goal.setdefault(topic, {})[partition] = end
    return goal


Report = Callable[[Progress | None], None]
"""Called again and again with how far the building is; None if nobody can say now."""


def wait_until_built(kafka: KafkaSettings, generation: Generation, report: Report) -> GenerationRecord:
    """Returns when the generation is complete. Waits out every outage. Raises ActRefused if it is retired meanwhile."""
    state, state_ends = Generations(), Offsets()
    with closing(OffsetReader(kafka)) as reader:
        while True:
            try:
                # Reading the log takes new clients. At each look they would be most of what the broker has to do.
                _, ends = reader.bounds([GENERATIONS])
                if ends != state_ends:
                    state, state_ends = read_generations(kafka), ends
                record = acts.known(state, generation)
                progress = read_progress(reader, record, datetime.now(UTC))
            except ActRefused:
                raise
            except StreamsError:
                report(None)
            else:
                if record.state == "retired":
                    raise ActRefused(f"the generation {generation} was retired while it was built")
                if record.state != "building":
                    return record
                report(progress)
            time.sleep(_LOOK_EVERY_S)
