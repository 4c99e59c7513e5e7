"""Every place between two effects has a name that the adversary knows, and leaves there as often as it is told."""

import re
import subprocess
import sys
from pathlib import Path

from streams import crash_points

SOURCES = Path(__file__).parent.parent.parent
PACKAGES = ("streams", "indexer", "retriever", "nearline")


def test_every_name_is_known_and_every_known_name_is_somewhere() -> None:
    named = [
        name
        for package in PACKAGES
        for file in (SOURCES / package).rglob("*.py")
        for name in re.findall(r'\bpoint\("([^"]+)"\)', file.read_text())
    ]
    assert sorted(named) == sorted(crash_points.NAMES)


def test_a_stage_leaves_as_often_as_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "crash.json"
    crash_points.write_file(file, "index.flushed", {"cold": 2})
    assert [_status(file, "cold"), _status(file, "encode"), _status(file, "cold")] == [86, 0, 86]
    assert crash_points.left_in(file) == {}
    assert _status(file, "cold") == 0


def _status(file: Path, stage: str) -> int:
    code = (
        "import os; from streams.crash_points import arm_from, point; "
        f"arm_from(os.environ, {stage!r}); point('index.stored'); point('index.flushed')"
    )
    environment = {"PATH": "", crash_points.FILE_VARIABLE: str(file)}
    return subprocess.run([sys.executable, "-c", code], env=environment, check=False, cwd=SOURCES).returncode
