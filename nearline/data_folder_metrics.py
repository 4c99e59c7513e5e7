"""How much room the file system of a data folder has, for Prometheus."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class DataFolderMetrics(Collector):
    """Looks at each scrape. Says nothing while the folder is not there."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def collect(self) -> Iterable[Metric]:
        size = GaugeMetricFamily(
            "nearline_data_folder_size_bytes", "Size of the file system that holds the data folder"
        )
        free = GaugeMetricFamily(
            "nearline_data_folder_free_bytes", "Bytes of it that a process of nearline may still use"
        )
        try:
            usage = shutil.disk_usage(self._data_dir)
        except OSError:
            return
        size.add_metric([], usage.total)
        free.add_metric([], usage.free)
        yield from (size, free)
