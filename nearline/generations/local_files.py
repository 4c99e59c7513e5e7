"""What a generation has in the data folder of one machine, and how it is removed.

Knows which folders there are. What is in them is the business of who writes them.
"""

import shutil
from pathlib import Path
from typing import Final

from nearline.generations.packages import packages_folder, remove_fetched
from schemas.files import write_whole
from schemas.generations import GenerationRecord
from schemas.ids import Generation

_HOT: Final = "hot"


def cold_folder(data_dir: Path, generation: Generation) -> Path:
    """Of the embedded cold tier."""
    return data_dir / "cold" / generation


def empty_if_of_an_earlier_life(folder: Path, record: GenerationRecord) -> None:
    """Removes the folder if it is older than the generation's newest life: this machine was away while the generation
    was retired and built again. Nobody may have the folder open. A file beside it says of which life it is."""
    marker, life = _marker(folder), str(record.begun)
    if marker.exists() and marker.read_text() != life:
        shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_whole(marker, life.encode())


def remove_local_files(data_dir: Path, generation: Generation) -> None:
    """Removes everything that a retired generation has here. Its processes must have ended. Can be repeated."""
    cold = cold_folder(data_dir, generation)
    shutil.rmtree(cold, ignore_errors=True)
    _marker(cold).unlink(missing_ok=True)
    shutil.rmtree(data_dir / _HOT / generation, ignore_errors=True)
    remove_fetched(data_dir, generation)


def has_local_files(data_dir: Path, generation: Generation) -> bool:
    cold = cold_folder(data_dir, generation)
    kept = (cold, _marker(cold), data_dir / _HOT / generation, packages_folder(data_dir) / generation)
    return any(path.exists() for path in kept)


def _marker(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.life")
