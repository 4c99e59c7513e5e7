"""Where a cold process listens: a Unix socket that only the instance's user may open, one for each generation.

It is named by the generation and not by the place: so nobody who has a generation open ever asks the next one at its
place, whose vectors mean something else.
"""

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from nearline.errors import BadSettings
from schemas.ids import Generation

_MAX_SOCKET_PATH: Final = 100
"""In bytes. The kernel allows 107."""


def cold_socket(data_dir: Path, generation: Generation) -> Path:
    """The path of the socket: in the data folder or, if that path is too long for a socket, in a private folder among
    the temporary files.

    Raises BadSettings if other accounts can open that private folder.
    """
    socket = data_dir / f"cold.{generation}.sock"
    if len(os.fsencode(socket)) <= _MAX_SOCKET_PATH:
        return socket
    folder = _private_folder()
    _make_private(folder)
    return folder / f"{_hashed(os.fsencode(data_dir))}.{_hashed(generation.encode())}.sock"


def remove_cold_sockets(data_dir: Path) -> None:
    """Removes the sockets of all generations. Call it where no cold process runs."""
    for socket in data_dir.glob("cold.*.sock"):
        socket.unlink(missing_ok=True)
    for socket in _private_folder().glob(f"{_hashed(os.fsencode(data_dir))}.*.sock"):
        socket.unlink(missing_ok=True)
    # If it holds sockets of other instances, it stays.
    with suppress(OSError):
        _private_folder().rmdir()


def _private_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"nearline-{os.getuid()}"


def _hashed(name: bytes) -> str:
    return hashlib.sha256(name).hexdigest()[:16]


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
