"""A monitor of a broker that is not there, in a process of its own: `python -m tests.kit.children.monitor FOLDER PORT`.
Prints `listens` when it does."""

import sys
from pathlib import Path
from threading import Event

from nearline import log
from nearline.settings.settings import MonitorSettings, Settings
from nearline.up.build_monitor import build_monitor
from streams.settings import KafkaSettings
from tests.kit.instances import NO_BROKER


def main(folder: str, port: str) -> None:
    log.configure("monitor", "info")
    monitor = MonitorSettings(port=int(port), canary_s=0)
    settings = Settings(data_dir=Path(folder), kafka=KafkaSettings(bootstrap_servers=NO_BROKER), monitor=monitor)
    build_monitor(settings, lambda: print("listens", flush=True))(Event())


if __name__ == "__main__":
    main(*sys.argv[1:])
