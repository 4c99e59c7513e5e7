"""Temporary folders for the data of brokers and instances, which make and delete files all the time."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

_IN_MEMORY: Final = Path("/dev/shm")
_GIB: Final = 2**30


def parent_of_data() -> Path | None:
    """A file system in memory, where this machine has one with room: making a broker's topics takes half the time
    there. None for the usual temporary folder."""
    if not os.access(_IN_MEMORY, os.W_OK):
        return None
    has_room = shutil.disk_usage(_IN_MEMORY).free >= 4 * _GIB and psutil.virtual_memory().available >= 8 * _GIB
    return _IN_MEMORY if has_room else None


@contextmanager
def temporary_data(prefix: str) -> Iterator[Path]:
    """Not in pytest's temporary folder, which is kept for three runs: a broker's log is large."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent_of_data()) as folder:
        yield Path(folder)
