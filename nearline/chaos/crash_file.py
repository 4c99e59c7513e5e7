"""The file that says at which crash point processes exit, and how often each stage still has to.

The adversary writes it, and each process of its pipeline reads it at its start (`process.py`).
"""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path

from schemas.files import write_whole
from streams.kafka import crash_points


def write_crash_file(file: Path, name: str, left: Mapping[str, int]) -> None:
    """`name` is the crash point. `left` is how often a process of each stage has to exit there, one after the other."""
    write_whole(file, json.dumps({"name": name, "left": dict(left)}).encode())


def crashes_left(file: Path) -> dict[str, int]:
    """The stages whose processes still have to exit, and how often."""
    return {stage: number for stage, number in _read(file)[1].items() if number}


def arm_from_file(file: Path, stage: str) -> None:
    """Called in a process of that stage: arms the crash point where the file has a crash left for the stage."""
    name, left = _read(file)
    if left.get(stage, 0) > 0:
        crash_points.arm(name, is_granted=lambda: _use_up_one_crash(file, stage))


def _use_up_one_crash(file: Path, stage: str) -> bool:
    """Uses up one of the crashes that the file grants this stage. False if none is left. Other processes and other
    threads may call this at the same time, so the lock is held until this process ends."""
    lock = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    name, left = _read(file)
    if left.get(stage, 0) <= 0:
        os.close(lock)
        return False
    write_crash_file(file, name, {**left, stage: left[stage] - 1})
    return True


def _read(file: Path) -> tuple[str, dict[str, int]]:
    content = json.loads(file.read_bytes())
    return content["name"], content["left"]
