"""What a generation has in the data folder of one machine, and how it is removed.

Knows which folders there are. What is in them is the business of who writes them.
"""

import os
import shutil
from pathlib import Path
from typing import Final

from indexer.cold.edge import folder
from indexer.errors import TierUnavailable
from nearline.generations.packages import packages_folder, remove_fetched
from schemas.files import write_whole
from schemas.generations import GenerationRecord
from schemas.ids import Generation

_HOT: Final = "hot"


def cold_folder(data_dir: Path, generation: Generation) -> Path:
    """Of the embedded cold tier."""
    return data_dir / "cold" / generation


def empty_if_of_an_earlier_life(cold: Path, record: GenerationRecord) -> None:
    """Removes the cold tier's folder if it is older than the generation's newest life: this machine was away while it
    was retired and built again. Nobody may have the folder open. A file beside it says of which life it is."""
    marker, life = _marker(cold), str(record.begun)
    if marker.exists() and marker.read_text() != life:
        shutil.rmtree(cold, ignore_errors=True)
    cold.parent.mkdir(parents=True, exist_ok=True)
    write_whole(marker, life.encode())


def remove_local_files(data_dir: Path, generation: Generation) -> bool:
    """Removes everything that a retired generation has here. Returns False if a process still has its cold tier open:
    then that stays, and the call is to be repeated. Nothing happens where nothing is left."""
    cold = cold_folder(data_dir, generation)
    is_removed = not cold.exists() or _remove_unless_open(cold)
    if is_removed:
        _marker(cold).unlink(missing_ok=True)
    shutil.rmtree(data_dir / _HOT / generation, ignore_errors=True)
    remove_fetched(data_dir, generation)
    return is_removed


def has_local_files(data_dir: Path, generation: Generation) -> bool:
    cold = cold_folder(data_dir, generation)
    kept = (cold, _marker(cold), data_dir / _HOT / generation, packages_folder(data_dir) / generation)
    return any(path.exists() for path in kept)


def _remove_unless_open(cold: Path) -> bool:
    try:
        lock = folder.lock(cold)
    except TierUnavailable:
        return False
    try:
        shutil.rmtree(cold, ignore_errors=True)
    finally:
        os.close(lock)
    return True


def _marker(cold: Path) -> Path:
    return cold.with_name(f"{cold.name}.life")
