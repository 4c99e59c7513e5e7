"""Serves what the monitor says over HTTP: `/metrics`, `/livez`, `/readyz`, and what others add, such as the operators'
page. Knows nothing of how it is found out."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry

from nearline.http_pages import NO_CALLS, Calls, Pages, Refuse, json_page, metrics_page, served_pages
from nearline.monitor.monitor import Monitor
from nearline.monitor.report import READY_PATH


@contextmanager
def served(
    monitor: Monitor,
    registry: CollectorRegistry,
    host: str,
    port: int,
    calls: Calls = NO_CALLS,
    *,
    refuse: Refuse = lambda _: None,
) -> Iterator[None]:
    """Serves within the context; `refuse` stands before all of it. Raises OSError if the port is taken."""
    pages: Pages = {
        "/metrics": lambda: metrics_page(registry),
        "/livez": lambda: json_page(monitor.is_alive, {"alive": monitor.is_alive}),
        READY_PATH: lambda: json_page(monitor.report.ready, monitor.report),
    }
    with served_pages("monitor-http", pages, host, port, calls, refuse=refuse):
        yield
