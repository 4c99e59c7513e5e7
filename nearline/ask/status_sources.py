"""Where the parts of a status come from: seen by a command from outside, and by the retriever's own process."""

from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from indexer.tiers import ColdReader
from nearline.ask.connections import Connections
from nearline.ask.hot_reports import HotReport, ask_all
from nearline.ask.standing import Standing, standing
from nearline.ask.status import BUDGET_S, Sources
from nearline.errors import NotRunning
from nearline.settings.instance import Instance, read_instance
from nearline.settings.settings import Settings
from retriever.errors import RetrieverError
from schemas.api import ProcessStatus, Readiness
from schemas.ids import Generation
from streams.generations.log import read_generations

if TYPE_CHECKING:
    from retriever.service.answering import Answering, HotFeeds

_RETRIEVER_S: Final = 2.0
"""Less than the status waits for it: if one of several processes is silent, the others are still reported."""
_COLD_S: Final = 3.0
"""The cold process may answer only after a flush."""
_MONITOR_S: Final = 2.0
"""One elsewhere may be silent for longer, while its name is looked up; the lags are asked for after it."""


def sources_of_command(connections: Connections) -> Sources:
    """Raises NotRunning where neither an instance nor a retriever elsewhere is known."""

    is_elsewhere = connections.settings.serve.url is not None
    generation = None if is_elsewhere else connections.generation
    return Sources(
        processes=list if is_elsewhere else lambda: _processes(connections.instance()),
        standing=lambda: _standing_of_command(connections),
        generation=generation,
        post_vectors=connections.settings.encode.post_vectors,
        kafka=lambda: connections.kafka,
        generations=lambda: read_generations(connections.kafka),
        hot=lambda: ask_all(connections.retrievers(_RETRIEVER_S), generation),
        cold=lambda: closing(connections.cold(_COLD_S, generation)),
        standing_s=BUDGET_S if connections.settings.monitor.url is None else _MONITOR_S,
    )


def sources_of_serve(
    settings: Settings, retriever: "Answering", feeds: "HotFeeds", cold: Callable[[Generation], ColdReader]
) -> Sources:
    """Of the generation that serves now. Asks the retriever directly, or all its processes if there are others. The
    list of processes is in the file that the supervisor writes."""
    itself = settings.model_copy(update={"serve": settings.serve.model_copy(update={"url": None})})
    generation: Generation | None = None
    with suppress(RetrieverError):  # none is open yet
        generation = retriever.generation

    def hot_report() -> HotReport:
        if settings.serve.workers > 1:
            connections = Connections(itself, lambda: read_instance(settings.data_dir))
            return ask_all(connections.retrievers(_RETRIEVER_S), generation)
        problems = retriever.problems()
        return HotReport(Readiness(ready=not problems, problems=problems), feeds.progress(generation))

    return Sources(
        processes=lambda: _processes_of_folder(settings.data_dir),
        standing=lambda: standing_in_folder(settings),
        generation=generation,
        post_vectors=settings.encode.post_vectors,
        kafka=lambda: settings.kafka,
        generations=lambda: read_generations(settings.kafka),
        hot=hot_report,
        cold=lambda: closing(cold(generation or retriever.generation)),
    )


def _standing_of_command(connections: Connections) -> Standing:
    """What runs elsewhere is judged by its monitor alone, if the settings name that. Raises NotRunning."""
    settings = connections.settings
    is_elsewhere = settings.serve.url is not None
    if is_elsewhere and settings.monitor.url is None:
        return Standing()
    processes = [] if is_elsewhere else connections.instance().processes
    return standing(connections.monitor, processes, settings.stalled_after_s)


def standing_in_folder(settings: Settings) -> Standing:
    """What stands still in the instance of the data folder, which is known to nobody where `nearline run` runs the
    retriever. Takes a second at most."""
    try:
        instance = read_instance(settings.data_dir)
    except NotRunning:
        return Standing()
    return standing(instance.monitor, instance.processes, settings.stalled_after_s)


def _processes_of_folder(data_dir: Path) -> list[ProcessStatus]:
    """None where `nearline run` runs the retriever, which belongs to no instance."""
    try:
        return _processes(read_instance(data_dir))
    except NotRunning:
        return []


def _processes(instance: Instance) -> list[ProcessStatus]:
    return [
        ProcessStatus(name=process.name, pid=process.pid, restarts=process.restarts) for process in instance.processes
    ]
