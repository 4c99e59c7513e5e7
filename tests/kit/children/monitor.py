"""A monitor of a broker that is not there, in a process of its own: `python -m tests.kit.children.monitor FOLDER PORT`,
and its API key if it has one. The retriever's is `of-all-clients`. Prints `listens` when it does."""

import sys
from pathlib import Path
from threading import Event

from pydantic import SecretStr

from nearline import log
from nearline.settings.settings import MonitorSettings, Settings
from nearline.up.build_monitor import build_monitor
from retriever.settings import ServeSettings
from streams.settings import KafkaSettings
from tests.kit.instances import NO_BROKER


def main(folder: str, port: str, key: str | None = None) -> None:
    log.configure("monitor", "info")
    monitor = MonitorSettings(port=int(port), canary_s=0, api_key=None if key is None else SecretStr(key))
    serve = ServeSettings(api_key=SecretStr("of-all-clients"))
    kafka = KafkaSettings(bootstrap_servers=NO_BROKER)
    settings = Settings(data_dir=Path(folder), kafka=kafka, monitor=monitor, serve=serve)
    build_monitor(settings, lambda: print("listens", flush=True))(Event())


if __name__ == "__main__":
    main(*sys.argv[1:])
