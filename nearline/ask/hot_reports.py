"""What the retriever reports of itself. Several processes of it share one port, where nobody knows which of them
answers. So each is asked on its own, and what holds for all of them is reported."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, NamedTuple

from nearline.ask.connections import Connections
from retriever.client import RetrieverClient
from retriever.errors import NotAllowed, RequestRefused, RetrieverError, RetrieverUnavailable
from schemas.api import FreshnessStatus, HotPositions, Readiness
from schemas.ids import Generation, Offset, Partition

_POSITIONS_S: Final = 5.0


class HotReport(NamedTuple):
    readiness: Readiness
    positions: HotPositions


def ask_all(clients: Mapping[str, RetrieverClient], generation: Generation | None = None) -> HotReport:
    """Asks all processes at the same time, by their names, and closes the clients. A process that does not answer is
    one of the problems. Raises RetrieverError if none answers.

    The positions are those of this generation, or of the serving one. Where a process cannot be asked for it yet, it is
    a problem too, and the positions are those of the generation that the first of them answers from."""
    with ThreadPoolExecutor(len(clients)) as pool:
        asked = {name: pool.submit(_ask, client, generation) for name, client in clients.items()}
    reports: dict[str, HotReport] = {}
    problems: list[str] = []
    failures: list[RetrieverError] = []
    for name, future in asked.items():
        try:
            report = future.result()
        except RetrieverError as error:
            failures.append(error)
            problems.append(f"{name}: {error}")
        else:
            reports[name] = report
            problems += [f"{name}: {problem}" if len(clients) > 1 else problem for problem in report.readiness.problems]
    if not reports:
        raise failures[0]
    positions = {name: report.positions for name, report in reports.items()}
    shown = _shown(generation, [each.generation for each in positions.values()])
    problems += [
        f"{name}: it answers from {each.generation}, and does not know {generation or shown} yet"
        for name, each in positions.items()
        if each.generation != (generation or shown)
    ]
    ready = not failures and all(report.readiness.ready for report in reports.values())
    of_shown = [each for each in positions.values() if each.generation == shown]
    return HotReport(Readiness(ready=ready, problems=problems), slowest(of_shown))


def _shown(wanted: Generation | None, known: Sequence[str]) -> str:
    return wanted if wanted in known and wanted is not None else known[0]


def _ask(client: RetrieverClient, generation: Generation | None) -> HotReport:
    with client:
        readiness = client.ready()
        if generation is not None:
            # One that is not open there yet. What that process answers from instead is reported.
            with suppress(RequestRefused, RetrieverUnavailable):
                return HotReport(readiness, client.hot_positions(generation))
        return HotReport(readiness, client.hot_positions())


class SlowestFeed:
    """Asks again and again how far the hot feed of a generation is in the slowest process. Connects again after a
    failure."""

    def __init__(self, connections: Connections, generation: Generation) -> None:
        self._connections = connections
        self._generation = generation
        self._clients: list[RetrieverClient] = []

    def positions(self) -> dict[Partition, Offset] | None:
        """For each partition the first offset that some process has not applied yet. None if one of them does not
        answer, or has not opened the generation yet. Raises NotRunning, NotReady, BadCertificate, NotAllowed."""
        self._clients = self._clients or list(self._connections.retrievers(_POSITIONS_S).values())
        try:
            reported = [client.hot_positions(self._generation) for client in self._clients]
        except NotAllowed:
            raise
        except (RetrieverUnavailable, RequestRefused):
            self.close()
            return None
        if any(each.generation != self._generation for each in reported):
            return None  # an earlier version, which knows one generation and looks at no name
        positions = slowest(reported).positions
        return {Partition(number): Offset(offset) for number, offset in positions.items()}

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self._clients = []


def slowest(reported: Sequence[HotPositions]) -> HotPositions:
    """As far as all of these processes are, at least one. All of them say it of one generation."""
    everywhere = set.intersection(*(set(each.positions) for each in reported))
    return HotPositions(
        generation=reported[0].generation,
        topic=reported[0].topic,
        caught_up=all(each.caught_up for each in reported),
        positions={partition: min(each.positions[partition] for each in reported) for partition in everywhere},
        posts=min(each.posts for each in reported),
        freshness_s=FreshnessStatus(
            p50=_largest(each.freshness_s.p50 for each in reported),
            p99=_largest(each.freshness_s.p99 for each in reported),
            newest_age_s=_largest(each.freshness_s.newest_age_s for each in reported),
        ),
    )


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
