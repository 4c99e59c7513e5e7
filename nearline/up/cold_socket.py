"""Where the cold process listens: a Unix socket that only the instance's user may open."""

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from nearline.errors import BadSettings

_MAX_SOCKET_PATH: Final = 100
"""In bytes. The kernel allows 107."""


def cold_socket(data_dir: Path) -> Path:
    """The path of the socket: in the data folder or, if that path is too long for a socket, in a private folder among
    the temporary files.

    Raises BadSettings if other accounts can open that private folder.
    """
    socket = data_dir / "cold.sock"
    if len(os.fsencode(socket)) <= _MAX_SOCKET_PATH:
        return socket
    folder = Path(tempfile.gettempdir()) / f"nearline-{os.getuid()}"
    _make_private(folder)
    return folder / f"{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]}.sock"


def _make_private(folder: Path) -> None:
    """Creates the folder. If it exists already, checks whose it is: another account may have created it first, to put
    its own sockets into it."""
    with suppress(FileExistsError):  # what exists is checked below, also if it is no folder
        folder.mkdir(mode=0o700)
    stat_result = folder.lstat()
    if not stat.S_ISDIR(stat_result.st_mode) or stat_result.st_uid != os.getuid() or stat_result.st_mode & 0o077:
        raise BadSettings(
            f"{folder} belongs to somebody else or is open to others, and sockets are kept there; remove it, or give a "
            "data folder with a shorter path with --data-dir"
        )
