"""What a generation has in the data folder of one machine, and how it is removed.

Knows which folders there are. What is in them is the business of who writes them.
"""

import os
import shutil
from pathlib import Path

from indexer.cold.edge import folder
from indexer.errors import TierUnavailable
from nearline.generations.packages import packages_folder, remove_fetched
from schemas.files import write_whole
from schemas.generations import GenerationRecord
from schemas.ids import ContextVersion, Generation
from streams.contexts.rows_folder import rows_folder


def hot_folder(data_dir: Path, generation: Generation) -> Path:
    """Of the snapshots of the hot tier."""
    return hot_folders(data_dir) / generation


def hot_folders(data_dir: Path) -> Path:
    """Holds a folder for each generation."""
    return data_dir / "hot"


def remove_snapshots_of_no_generation(data_dir: Path) -> None:
    """An earlier version had one generation, and its snapshots where the folders of the generations are now. They hold
    texts' vectors that may have been deleted since. Nobody may be writing snapshots."""
    for entry in hot_folders(data_dir).glob("*"):
        # A generation's folder holds one folder for each life of its topic.
        if not entry.is_dir() or any(not child.is_dir() for child in entry.iterdir()):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


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


def remove_local_files(data_dir: Path, record: GenerationRecord) -> bool:
    """Removes everything that a retired generation has here. Returns False if a process still has its cold tier open:
    then that stays, and the call is to be repeated. Nothing happens where nothing is left."""
    cold = cold_folder(data_dir, record.id)
    is_removed = not cold.exists() or _remove_unless_open(cold)
    if is_removed:
        _marker(cold).unlink(missing_ok=True)
    shutil.rmtree(hot_folder(data_dir, record.id), ignore_errors=True)
    remove_fetched(data_dir, record.id, record.since)
    return is_removed


def remove_rows(data_dir: Path, slot: str, version: ContextVersion) -> None:
    """The rows that a worker of a retired version of the contexts has left. It must have ended."""
    shutil.rmtree(rows_folder(data_dir, slot, version), ignore_errors=True)


def has_local_files(data_dir: Path, generation: Generation) -> bool:
    cold = cold_folder(data_dir, generation)
    kept = (cold, _marker(cold), hot_folder(data_dir, generation), packages_folder(data_dir) / generation)
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
