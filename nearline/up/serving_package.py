"""Decides which package an instance serves: the one that the log of the generations names.

Only the very first package comes from the settings: on a log without any generation it is founded. Owns what has to be
in Kafka before any process starts. Knows no process.
"""

import shlex
import time
from collections.abc import Callable
from contextlib import closing
from typing import TypeVar

import structlog

from encoders.package.model_package import ModelPackage
from nearline.errors import StartFailed
from nearline.generations.packages import checked_files, package_here
from nearline.settings.settings import Settings
from schemas.generations import PackageSource
from schemas.topics import FIRST_CONTEXTS, context_topics, shared_topics
from streams.errors import ActRefused, Fenced, KafkaUnavailable
from streams.generations import acts
from streams.generations.log import change_generations, read_generations
from streams.generations.state import Generations
from streams.kafka.forms import refuse_newer_forms, write_forms
from streams.kafka.offsets import OffsetReader
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings

_T = TypeVar("_T")

log = structlog.get_logger(__name__)


def serving_package(settings: Settings, named: ModelPackage | None) -> ModelPackage:
    """The package of the serving generation, checked. `named`: what the settings name; None if they name none, and then
    the demo's package is the first one. The topic `generations` must exist.

    Raises StartFailed, BadPackage, StreamsError: Fenced if an operator changes the generations at the same time."""
    state = read_generations(settings.kafka)
    for damage in state.damages:
        log.error("a damaged record; what its key stands for stays as it was", error=str(damage))
    if state.serving is None:
        checked = checked_files(settings.data_dir)
        state = _found(settings.kafka, named or ModelPackage.load(settings.package_folder.absolute(), checked))
    assert state.serving is not None
    if named is not None:
        if named.generation == state.serving.id:
            return named
        _refuse_unless_it_served(state, named)
    return ModelPackage.load(package_here(state.serving, settings).folder, checked_files(settings.data_dir))


def _found(kafka: KafkaSettings, package: ModelPackage) -> Generations:
    """Raises ActRefused if another process has founded another generation meanwhile."""
    _refuse_if_others_served(kafka, package)
    source = PackageSource(folder=str(package.folder))
    first = acts.Package(package.generation, source, package.digest)
    by = acts.acting(acts.this_process(), "the first package")
    return change_generations(kafka, lambda state: acts.found(state, first, by))


def _refuse_if_others_served(kafka: KafkaSettings, package: ModelPackage) -> None:
    """A version that did not write the log yet left embedding topics. What it served must be founded: nothing else is
    complete."""
    with closing(OffsetReader(kafka)) as reader:
        served = reader.generations()
    if served and package.generation not in served:
        raise StartFailed(
            f"an earlier version served {' or '.join(served)} here, and this package is {package.generation}; start "
            "once with the package that was served, as --package, and then build this one beside it: "
            f"nearline generations build {shlex.quote(str(package.folder))}"
        )


def _refuse_unless_it_served(state: Generations, named: ModelPackage) -> None:
    """Settings may go on naming a package that was replaced by a promotion. Any other one must be built first."""
    record = state.records.get(named.generation)
    if record is not None and acts.has_served(record):
        log.warning(
            "the settings name a package that was replaced; the log says what serves",
            named=named.generation,
            serving=state.serving and state.serving.id,
        )
        return
    if record is not None and record.state in ("building", "ready"):
        raise ActRefused(
            f"the generation {named.generation} is {record.state}, and does not serve yet; start without --package, "
            f"and then: nearline generations promote {named.generation}"
        )
    assert state.serving is not None
    raise ActRefused(
        f"the generation {state.serving.id} serves here, and this package is {named.generation}; start without "
        "--package, and then build it beside the other: "
        f"nearline generations build {shlex.quote(str(named.folder))}"
    )


def ensure_core_topics(kafka: KafkaSettings) -> None:
    """The topics that must be there before anything is founded. Those of the first contexts are not made again when
    these are retired. Raises StreamsError, and NewerForm before anything is changed."""
    stored = refuse_newer_forms(kafka)
    ensure_topics(kafka, shared_topics())
    write_forms(kafka, stored)
    if FIRST_CONTEXTS in read_generations(kafka).context_versions:
        ensure_topics(kafka, context_topics(FIRST_CONTEXTS))


def ensure_topics_of_live(kafka: KafkaSettings) -> None:
    """Whoever founds or builds a generation makes its topics. This makes them where that one was killed, and gives them
    what the settings say now. Raises StreamsError."""
    ensure_topics(kafka, read_generations(kafka).topics)


def waiting_for_kafka(ask: Callable[[], _T]) -> _T:
    """Waits as long as it takes for a broker that somebody else starts. Any other error ends the start."""
    while True:
        try:
            return ask()
        except (KafkaUnavailable, Fenced) as error:
            log.warning("waiting for Kafka", error=str(error))
            time.sleep(1)
