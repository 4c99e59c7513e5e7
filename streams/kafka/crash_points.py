"""Named places between two effects, where a test makes this process leave as a kill -9 would.

Nothing is armed unless a process asks for it; a place that is not armed costs one look at an empty dictionary.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

NAMES: Final = (
    "transaction.begun",
    "transaction.outputs-sent",
    "transaction.offsets-sent",
    "transaction.committed",
    "transaction.rows-written",
    "index.indexed",
    "index.flushed",
    "index.dead-lettered",
    "index.stored",
    "index.committed",
)
VARIABLE: Final = "NEARLINE_CRASH_POINT"
"""`name` or `name:n`: leave at the n-th pass of that place. Read only where a process calls `arm_from`."""
FILE_VARIABLE: Final = "NEARLINE_CRASH_FILE"
"""A file that says at which place, and how often yet, the processes of each stage leave: see `write_file`."""
EXIT_STATUS: Final = 86

_armed: dict[str, int] = {}
_file: list[tuple[Path, str]] = []
"""At most one: the file that armed this process, and its stage."""


def arm(name: str, passes: int = 1) -> None:
    """Leave at the pass number `passes` of the place `name`, counted from now."""
    _armed[name] = passes


def arm_from(environment: Mapping[str, str], stage: str = "") -> None:
    name, _, passes = environment.get(VARIABLE, "").partition(":")
    if name:
        arm(name, int(passes or 1))
    if file := environment.get(FILE_VARIABLE):
        name, left = _read(Path(file))
        if left.get(stage, 0) > 0:
            _file.append((Path(file), stage))
            arm(name)


def write_file(file: Path, name: str, left: Mapping[str, int]) -> None:
    """`left`: how many times a process of each stage leaves yet, one after the other. Whole or not at all."""
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"name": name, "left": dict(left)}))
    temporary.replace(file)


def left_in(file: Path) -> dict[str, int]:
    """Of each stage that has yet to leave."""
    return {stage: number for stage, number in _read(file)[1].items() if number}


def point(name: str) -> None:
    """Called between two effects."""
    if not _armed or name not in _armed:
        return
    _armed[name] -= 1
    if _armed[name] <= 0 and all(_takes_one(file, stage) for file, stage in _file):
        os.write(2, f"leaving at the crash point {name}\n".encode())
        os._exit(EXIT_STATUS)


def _takes_one(file: Path, stage: str) -> bool:
    """One leave less is left; False where none was. Other stages and other threads of this one want theirs at the same
    time: the lock is held until this process ends."""
    lock = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    place, left = _read(file)
    if left.get(stage, 0) <= 0:
        os.close(lock)
        return False
    write_file(file, place, {**left, stage: left[stage] - 1})
    return True


def _read(file: Path) -> tuple[str, dict[str, int]]:
    found = json.loads(file.read_bytes())
    return found["name"], found["left"]
