"""Serves the metrics of a process over HTTP, and tells Prometheus their address.

Each process takes a free port and writes its address into `DATA/metrics/NAME.json`, which Prometheus reads with
`file_sd_configs`. Knows no metric.
"""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.files import write_whole

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


def targets_folder(data_dir: Path) -> Path:
    return data_dir / "metrics"


def process_registry() -> "CollectorRegistry":
    """Holds this process's own memory, processor time and open files."""
    from prometheus_client import CollectorRegistry, ProcessCollector

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


@contextmanager
def served_metrics(name: str, data_dir: Path, host: str, registry: "CollectorRegistry") -> Iterator[None]:
    """Serves the registry's metrics over HTTP within the context."""
    from prometheus_client import start_http_server

    server, thread = start_http_server(0, host, registry)
    try:
        announce(name, data_dir, host, server.server_port)
        yield
    finally:
        withdraw(name, data_dir)
        server.shutdown()
        server.server_close()
        thread.join()


def announce(name: str, data_dir: Path, host: str, port: int, scheme: str = "http") -> None:
    """Writes the file with the address for Prometheus, whole or not at all. Prometheus takes the scheme from the label
    `__scheme__`."""
    reachable = socket.gethostname() if host in {"0.0.0.0", "::"} else host
    address = f"[{reachable}]:{port}" if ":" in reachable else f"{reachable}:{port}"
    target = _file(name, data_dir)
    target.parent.mkdir(exist_ok=True)
    labels = {"process": name} if scheme == "http" else {"process": name, "__scheme__": scheme}
    write_whole(target, json.dumps([{"targets": [address], "labels": labels}]).encode() + b"\n")


def withdraw(name: str, data_dir: Path) -> None:
    _file(name, data_dir).unlink(missing_ok=True)


def addresses(process: str, data_dir: Path) -> list[str]:
    """The addresses that all processes of this name have announced, such as `encode-0` and `encode-1` for `encode`."""
    files = targets_folder(data_dir).glob(f"{process}*.json")
    return [address for file in files for group in json.loads(file.read_bytes()) for address in group["targets"]]


def _file(name: str, data_dir: Path) -> Path:
    return targets_folder(data_dir) / f"{name}.json"
