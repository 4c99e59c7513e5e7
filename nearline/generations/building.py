"""Builds a generation beside the serving one: finds its package, makes its topics, and says in the log what to build.

The work itself is done by the encode and cold processes of its place, wherever they run.
"""

import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from encoders.package.model_package import ModelPackage
from nearline.errors import BadSettings
from nearline.generations.packages import fetch_unless_here
from schemas.generations import GenerationRecord, PackageSource
from schemas.ids import Generation
from schemas.topics import MEMBER_CONTEXTS, POST_CONTEXTS, generation_topics
from streams.errors import ActRefused, StreamsError
from streams.generations import acts
from streams.generations.log import change_generations, read_generations
from streams.generations.progress import Progress, read_progress
from streams.generations.state import Generations
from streams.kafka.crash_points import crash_point
from streams.kafka.offsets import OffsetReader
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings

_LOOK_EVERY_S: Final = 0.5


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


def find_package(name: str, registry: str | None, data_dir: Path) -> acts.Package:
    """The same package with every file checked. One in a registry is fetched into the data folder. Raises BadPackage,
    BadRegistry."""
    folder = Path(name).absolute()
    if folder.is_dir() or registry is None:
        package = ModelPackage.load(folder)
        return acts.Package(package.generation, PackageSource(folder=str(folder)), package.digest)
    package = ModelPackage.load(fetch_unless_here(Generation(name), registry, data_dir))
    place = registry if "://" in registry else str(Path(registry).absolute())
    return acts.Package(package.generation, PackageSource(registry=place), package.digest)


def start_building(kafka: KafkaSettings, package: acts.Package, by: acts.By, rate: float | None) -> Generations:
    """Can be repeated: after a crash between any two steps the next call goes on. What an earlier life of the
    generation has left must be removed. Raises ActRefused, StreamsError."""
    # 1. Refuse before anything is made.
    acts.build(read_generations(kafka), package, {}, by, rate=rate)
    # 2. The topics, which its processes expect to exist.
    ensure_topics(kafka, generation_topics(package.id))
    crash_point("generations.topics-made")
    # 3. The goal, and the act.
    goal = _ends_of_contexts(kafka)
    return change_generations(kafka, lambda state: acts.build(state, package, goal, by, rate=rate))


def _ends_of_contexts(kafka: KafkaSettings) -> acts.Goal:
    with closing(OffsetReader(kafka)) as reader:
        _, ends = reader.bounds((POST_CONTEXTS, MEMBER_CONTEXTS))
    goal: acts.Goal = {}
    for (topic, partition), end in ends.items():
        goal.setdefault(topic, {})[partition] = end
    return goal


Report = Callable[[Progress | None], None]
"""Called again and again with how far the building is; None if nobody can say now."""


def wait_until_built(kafka: KafkaSettings, generation: Generation, report: Report) -> GenerationRecord:
    """Returns when the generation is complete. Waits out every outage. Raises ActRefused if it is retired meanwhile."""
    with closing(OffsetReader(kafka)) as reader:
        while True:
            try:
                record = acts.known(read_generations(kafka), generation)
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
