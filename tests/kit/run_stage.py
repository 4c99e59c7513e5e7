"""A `nearline run` of one stage on a data folder of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def running_stage(stage: str, data_dir: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Runs within the context; its log is beside the data folder. It is told to stop, and killed if it does not."""
    command = [sys.executable, "-m", "nearline", "run", stage, "--data-dir", str(data_dir)]
    with data_dir.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, env={**os.environ, **environment})
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
