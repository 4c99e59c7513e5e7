"""A file that grants crashes: at which crash point the processes of a stage leave, and how often yet.

The adversary writes it, and each process of its pipeline reads it when it starts (`process.py`).
"""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path

from schemas.files import write_whole
from streams.kafka import crash_points


def write_crash_file(file: Path, name: str, left: Mapping[str, int]) -> None:
    """`left`: how many times a process of each stage leaves yet, one after the other. Whole or not at all."""
    write_whole(file, json.dumps({"name": name, "left": dict(left)}).encode())


def crashes_left(file: Path) -> dict[str, int]:
    """Of each stage that has yet to leave."""
    return {stage: number for stage, number in _read(file)[1].items() if number}


def arm_from_file(file: Path, stage: str) -> None:
    """Arms this process, of that stage, where the file grants it a crash."""
    name, left = _read(file)
    if left.get(stage, 0) > 0:
        crash_points.arm(name, is_granted=lambda: _use_up_one_crash(file, stage))


def _use_up_one_crash(file: Path, stage: str) -> bool:
    """Uses up one of the crashes that the file grants this stage. False if none is left. Other processes, and other
    threads of this one, may ask at the same time: whoever gets a crash holds the lock until the process ends."""
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
