"""Who may open the folder of an embedded cold tier: one process at a time, and one generation for good.

Owns the lock file and the manifest in that folder. Knows nothing of what else is in it.
"""

import fcntl
import json
import os
from pathlib import Path
from typing import Any, Final

from indexer.errors import TierRefused, TierUnavailable
from schemas.files import write_whole

_MANIFEST: Final = "cold.json"
_LOCK: Final = "owner.lock"


def lock(folder: Path) -> int:
    """Creates the folder and locks it. Returns the file descriptor of the lock. Closing the descriptor releases the
    lock. Raises TierUnavailable if another process holds the lock."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise TierUnavailable(f"{folder} has another owner; one process at a time holds the cold tier") from error
    return descriptor


def check_manifest(folder: Path, expected: dict[str, Any]) -> None:
    """Writes the manifest into a new folder. Raises TierRefused if the folder has a different manifest."""
    path = folder / _MANIFEST
    if not path.exists():
        write_whole(path, json.dumps(expected).encode())
        return
    stored = json.loads(path.read_text())
    if stored != expected:
        raise TierRefused(f"{folder} holds the cold tier of {stored}, not of {expected}; use another data folder")
