"""Processes of a stage leave at a crash point as often as the adversary's file grants it."""

import subprocess
import sys
from pathlib import Path

from nearline.chaos.crash_file import crashes_left, write_crash_file
from streams.kafka.crash_points import EXIT_STATUS


def test_a_stage_leaves_as_often_as_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "crashes.json"
    write_crash_file(file, "index.flushed", {"cold": 2})
    assert [_status(file, "cold"), _status(file, "encode"), _status(file, "cold")] == [EXIT_STATUS, 0, EXIT_STATUS]
    assert crashes_left(file) == {}
    assert _status(file, "cold") == 0


def _status(file: Path, stage: str) -> int:
    code = (
        "import pathlib; from nearline.chaos.crash_file import arm_from_file; "
        "from streams.kafka.crash_points import crash_point; "
        f"arm_from_file(pathlib.Path({str(file)!r}), {stage!r}); "
        "crash_point('index.stored'); crash_point('index.flushed')"
    )
    return subprocess.run([sys.executable, "-c", code], check=False).returncode
