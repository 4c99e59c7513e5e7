"""A monitor over HTTP whose broker is not there, as others ask it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry

from nearline.monitor.metrics import MonitorMetrics
from nearline.monitor.monitor import Monitor
from nearline.monitor.processes import ProcessWatch
from nearline.monitor.server import served
from nearline.ports import free_ports
from streams.settings import KafkaSettings
from tests.kit.instances import NO_BROKER


@contextmanager
def monitor_without_broker(folder: Path) -> Iterator[str]:
    """Its URL. It says that the broker has stood still for 31 s."""
    now_s = 100.0
    monitor = Monitor(
        KafkaSettings(bootstrap_servers=NO_BROKER), lambda: None, ProcessWatch(folder), 60.0, lambda: now_s
    )
    now_s += 31.0
    monitor.judge()
    registry = CollectorRegistry()
    registry.register(MonitorMetrics(monitor))
    (port,) = free_ports(1)
    with served(monitor, registry, "127.0.0.1", port):
        yield f"http://127.0.0.1:{port}"
