"""A trending stage in a process of its own:
`python -m tests.streams.trending_child BOOTSTRAP INTERVAL_S DATA_DIR [broken]`.

Its pulse is in DATA_DIR, under its pid. `broken`: reading an activity raises what nobody expected.
"""

import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, NoReturn

from streams import trending
from streams.pulse import FilePulse
from streams.settings import KafkaSettings, TrendingSettings


def surprise(*_: Any) -> NoReturn:
    raise RuntimeError("injected: nobody expects this")


def main(bootstrap_servers: str, interval_s: str, data_dir: str, broken: str = "") -> None:
    if broken:
        trending.decode_event = surprise  # type: ignore[assignment]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = TrendingSettings(interval_s=float(interval_s), half_life_s=1e9)
    kafka = KafkaSettings(bootstrap_servers=bootstrap_servers)
    with tempfile.TemporaryDirectory() as folder:
        trending.run_trending(kafka, settings, Path(folder), stop, pulse=FilePulse(Path(data_dir), str(os.getpid())))


if __name__ == "__main__":
    main(*sys.argv[1:])
