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
from schemas.forms import COLD_TIER, IN_FOLDER, refuse_newer

_MANIFEST: Final = "cold.json"
_LOCK: Final = "owner.lock"
_FORM: Final = "form"
"""A manifest without it is of form 1: the versions before there were forms accept no other field."""


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
    """Writes the manifest into a new folder. Raises TierRefused if the folder has a different manifest, and NewerForm
    if a newer version has written in it."""
    path = folder / _MANIFEST
    form = IN_FOLDER[COLD_TIER].written
    if not path.exists():
        write_whole(path, json.dumps(_with_form(expected, form)).encode())
        return
    stored = json.loads(path.read_text())
    stored_form = stored.pop(_FORM, 1)
    refuse_newer(f"the folder {folder}", {COLD_TIER: stored_form}, IN_FOLDER)
    if stored == expected and stored_form < form:
        write_whole(path, json.dumps(_with_form(expected, form)).encode())
    if stored != expected:
        raise TierRefused(f"{folder} holds the cold tier of {stored}, not of {expected}; use another data folder")


def _with_form(manifest: dict[str, Any], form: int) -> dict[str, Any]:
    return manifest if form == 1 else {**manifest, _FORM: form}
