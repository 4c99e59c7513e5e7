"""Where the parts of a status come from: seen by a command from outside, and by the retriever's own process."""

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from typing import TYPE_CHECKING, Final

from indexer.tiers import ColdReader
from nearline.ask.connections import Connections
from nearline.ask.status import HotReport, Sources
from nearline.settings.instance import Instance, read_instance
from nearline.settings.settings import Settings
from schemas.api import ProcessStatus, Readiness

if TYPE_CHECKING:
    from retriever.answer.retriever import Retriever
    from retriever.feed.hot_feed import HotFeed

_RETRIEVER_S: Final = 3.0
_COLD_S: Final = 3.0
"""The cold process may answer only after a flush."""


def sources_of_command(connections: Connections) -> Sources:
    """Raises NotRunning where neither an instance nor a retriever elsewhere is known."""

    def hot_report() -> HotReport:
        with connections.retriever(_RETRIEVER_S) as client:
            return HotReport(client.ready(), client.hot_positions())

    is_elsewhere = connections.settings.serve.url is not None
    return Sources(
        processes=list if is_elsewhere else lambda: _processes(connections.instance()),
        generation=None if is_elsewhere else connections.generation,
        kafka=lambda: connections.kafka,
        hot=hot_report,
        cold=lambda: closing(connections.cold(_COLD_S)),
    )


def sources_of_serve(
    settings: Settings, retriever: "Retriever", feed: "HotFeed", cold: Callable[[], AbstractContextManager[ColdReader]]
) -> Sources:
    """Asks the retriever directly. The list of processes is in the file that the supervisor writes."""

    def hot_report() -> HotReport:
        problems = retriever.problems()
        return HotReport(Readiness(ready=not problems, problems=problems), feed.progress())

    return Sources(
        processes=lambda: _processes(read_instance(settings.data_dir)),
        generation=retriever.generation,
        kafka=lambda: settings.kafka,
        hot=hot_report,
        cold=cold,
    )


def _processes(instance: Instance) -> list[ProcessStatus]:
    return [
        ProcessStatus(name=process.name, pid=process.pid, restarts=process.restarts) for process in instance.processes
    ]
