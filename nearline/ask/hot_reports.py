"""What the retriever reports of itself. Several processes of it share one port, where nobody knows which of them
answers. So each is asked on its own, and what holds for all of them is reported."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from nearline.ask.connections import Connections
from retriever.client import RetrieverClient
from retriever.errors import RetrieverError, RetrieverUnavailable
from schemas.api import FreshnessStatus, HotPositions, Readiness
from schemas.ids import Offset, Partition

_POSITIONS_S: Final = 5.0


class HotReport(NamedTuple):
    readiness: Readiness
    positions: HotPositions


def ask_all(clients: Mapping[str, RetrieverClient]) -> HotReport:
    """Asks all processes at the same time, by their names, and closes the clients. A process that does not answer is
    one of the problems. Raises RetrieverError if none answers."""
    with ThreadPoolExecutor(len(clients)) as pool:
        asked = {name: pool.submit(_ask, client) for name, client in clients.items()}
    reports: list[HotReport] = []
    problems: list[str] = []
    failures: list[RetrieverError] = []
    for name, future in asked.items():
        try:
            report = future.result()
        except RetrieverError as error:
            failures.append(error)
            problems.append(f"{name}: {error}")
        else:
            reports.append(report)
            problems += [f"{name}: {problem}" if len(clients) > 1 else problem for problem in report.readiness.problems]
    if not reports:
        raise failures[0]
    ready = not failures and all(report.readiness.ready for report in reports)
    return HotReport(Readiness(ready=ready, problems=problems), slowest([report.positions for report in reports]))


def _ask(client: RetrieverClient) -> HotReport:
    with client:
        return HotReport(client.ready(), client.hot_positions())


class SlowestFeed:
    """Asks again and again how far the hot feed of the slowest process is. Connects again after a failure."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._clients: list[RetrieverClient] = []

    def positions(self) -> dict[Partition, Offset] | None:
        """For each partition the first offset that some process has not applied yet. None if one of them does not
        answer. Raises NotRunning, NotReady, BadCertificate."""
        self._clients = self._clients or list(self._connections.retrievers(_POSITIONS_S).values())
        try:
            positions = slowest([client.hot_positions() for client in self._clients]).positions
        except RetrieverUnavailable:
            self.close()
            return None
        return {Partition(number): Offset(offset) for number, offset in positions.items()}

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self._clients = []


def slowest(reported: Sequence[HotPositions]) -> HotPositions:
    """As far as all of these processes are, at least one."""
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
        ),
    )


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
