"""`nearline up` with processes that can be broken: how a pipeline of the adversary is started.

`python -m nearline.chaos.up` is its command. It takes its settings from the environment alone.
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from nearline import log
from nearline.chaos.crash_file import write_crash_file
from nearline.chaos.flaky_cold_tier import write_cold_faults
from nearline.chaos.process import cold_faults_file, crash_file
from nearline.pipeline import COMMAND_S, Pipeline
from nearline.settings.loading import load_settings
from nearline.up.runtime import run_up

_COMMAND: Final = (sys.executable, "-m", "nearline.chaos.up")
_CRASHING: Final = (sys.executable, "-m", "nearline.chaos.command")


class BreakablePipeline(Pipeline):
    """Does what is written into its crash file and its file of cold faults. At first no fault is."""

    def __init__(self, data_dir: Path, environment: Mapping[str, str]) -> None:
        write_crash_file(crash_file(data_dir), "", {})
        write_cold_faults(cold_faults_file(data_dir), 0)
        super().__init__(data_dir, environment=environment, up=_COMMAND)

    def crash(self, point: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """Runs a command that exits at the crash point, if it passes it."""
        return subprocess.run(
            [*_CRASHING, point, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            env=self._environment,
            check=False,
        )


if __name__ == "__main__":
    settings = load_settings(None, None, serve__port=0)
    log.configure("up", settings.log_level)
    run_up(settings, process_module="nearline.chaos.process")
