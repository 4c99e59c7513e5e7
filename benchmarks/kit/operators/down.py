"""How quickly an operator is answered while the broker does not answer anybody."""

from typing import Final, NamedTuple

from benchmarks.kit.operators.asking import fetch, monitor_of, p99_s
from benchmarks.kit.reindex.instance import connections
from benchmarks.kit.stopping import stopped
from benchmarks.kit.table import Figure
from benchmarks.kit.waiting import until
from nearline.ask.status import read_status
from nearline.ask.status_sources import sources_of_command
from nearline.monitor.report import ask_monitor
from nearline.pipeline import Pipeline

_BOUND_S: Final = 1.0
_PAGES: Final = ("/metrics", "/", "/v1/overview")


class DownSizes(NamedTuple):
    times: int


def down(pipeline: Pipeline, sizes: DownSizes) -> list[Figure]:
    """The broker is frozen, which is worse than gone: nothing is refused. It begins when the monitor has named it.
    Raises HTTPError for a page that answers with an error."""
    monitor = monitor_of(pipeline)
    with stopped(pipeline, "broker"):
        until(lambda: not ask_monitor(monitor, 10).broker_up, "the monitor to name the broker")
        status_s = p99_s(lambda: read_status(sources_of_command(connections(pipeline))), sizes.times)
        figures = [Figure("status while the broker is down, p99, s", status_s, _BOUND_S, "at_most")]
        for path in _PAGES:
            took_s = p99_s(lambda path=path: fetch(monitor + path), sizes.times)  # type: ignore[misc]
            figures.append(
                Figure(f"{path} of the monitor while the broker is down, p99, s", took_s, _BOUND_S, "at_most")
            )
    until(lambda: ask_monitor(monitor, 10).ready, "all of it to be in order again")
    return figures
