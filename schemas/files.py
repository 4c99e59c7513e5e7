"""Writes small files that other processes may be reading, so that nobody ever reads a part of one."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(file: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Readers see the old file or the new one. If several write at the same time, the last one wins. The folder must
    exist. Raises OSError."""
    with _temporary_beside(file, content, mode) as temporary:
        temporary.replace(file)


def write_once(file: Path, content: bytes) -> None:
    """Does nothing if the file exists. If several write at the same time, the first one wins. The folder must exist.
    Raises OSError."""
    if file.exists():
        return
    with _temporary_beside(file, content, 0o644) as temporary:
        try:
            file.hardlink_to(temporary)
        except FileExistsError:
            return


@contextmanager
def _temporary_beside(file: Path, content: bytes, mode: int) -> Iterator[Path]:
    """A file with this content in the same folder. It is removed afterwards, unless it was moved away."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
            opened.write(content)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
