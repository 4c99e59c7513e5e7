"""A trending stage in a process of its own:
`python -m tests.kit.children.trending_stage BOOTSTRAP INTERVAL_S DATA_DIR [broken]`.

Its heartbeat is in DATA_DIR, under its pid. `broken`: reading an activity raises what nobody expected.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

from streams.kafka.heartbeat import HeartbeatFile
from streams.settings import KafkaSettings, TrendingSettings
from streams.trending import stage as trending


def surprise(*_: Any) -> NoReturn:
    raise RuntimeError("injected: nobody expects this")


def main(bootstrap_servers: str, interval_s: str, data_dir: str, broken: str = "") -> None:
    if broken:
        trending.decode_event = surprise  # type: ignore[assignment]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = TrendingSettings(interval_s=float(interval_s), half_life_s=1e9)
    kafka = KafkaSettings(bootstrap_servers=bootstrap_servers)
    heartbeat = HeartbeatFile(Path(data_dir), str(os.getpid()))
    # Not a temporary folder: whoever is killed, or leaves at once, gives none back.
    trending.run_trending(kafka, settings, Path(data_dir) / f"faust-{os.getpid()}", stop, heartbeat=heartbeat)


if __name__ == "__main__":
    main(*sys.argv[1:])
