"""A monitor in a process of its own: `python -m tests.kit.children.monitor FOLDER PORT [KEY [BROKER]]`. Where none is
named the broker is not there. The retriever's key is `of-all-clients`. Prints `listens` when it does."""

import sys
from pathlib import Path
from threading import Event

from pydantic import SecretStr

from nearline import log
from nearline.monitor import mending
from nearline.settings.settings import MonitorSettings, Settings
from nearline.up.build_monitor import build_monitor
from retriever.settings import ServeSettings
from streams.settings import KafkaSettings
from tests.kit.instances import NO_BROKER


def main(folder: str, port: str, key: str = "", broker: str = NO_BROKER) -> None:
    log.configure("monitor", "info")
    mending.MEND_EVERY_S = 0.1  # type: ignore[misc]
    monitor = MonitorSettings(port=int(port), canary_s=0, api_key=SecretStr(key) if key else None)
    serve = ServeSettings(api_key=SecretStr("of-all-clients"))
    kafka = KafkaSettings(bootstrap_servers=broker)
    settings = Settings(data_dir=Path(folder), kafka=kafka, monitor=monitor, serve=serve)
    build_monitor(settings, lambda: print("listens", flush=True))(Event())


if __name__ == "__main__":
    main(*sys.argv[1:])
