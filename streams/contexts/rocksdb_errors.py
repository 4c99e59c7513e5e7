"""What an error of RocksDB means. rocksdict gives errors as text only; this is the one place that reads these texts."""

from typing import Final

_DAMAGE_PREFIXES: Final = ("Corruption: ", "IO error: No such file or directory: ")
"""How RocksDB's errors begin when its files are damaged or gone. rocksdict gives errors as text only."""
_SHORTAGES: Final = ("Too many open files", "No space left on device", "Cannot allocate memory")
"""Errors of a machine that has run out of something. RocksDB may call the consequence a corruption, but the files are
sound."""


def is_damage(error: Exception) -> bool:
    """True if the files are damaged or gone, so that only new ones help."""
    text = str(error)
    return text.startswith(_DAMAGE_PREFIXES) and not any(shortage in text for shortage in _SHORTAGES)


def remedy(error: Exception) -> str:
    """What a person can do, as the end of a sentence."""
    text = str(error)
    if "Too many open files" in text:
        return "allow the process more files (ulimit -n)"
    if "No space left on device" in text:
        return "make room on that disk"
    if "/LOCK" in text:
        return "end the process that has them open"
    return "check that disk and the folder's permissions, or remove the folder: the rows are restored"
