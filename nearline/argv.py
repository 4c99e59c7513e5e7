"""Covers secrets among our arguments, so that a process list shows asterisks instead.

Overwrites what the kernel shows, as mysql and curl do, since this needs no second start: a process that starts itself
anew without the secret shows it just as long. `sys.argv`, Python's own copy, keeps it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_SELF: Final = Path("/proc/self")
_START_FIELD: Final = 48 - 3
"""arg_start in stat(5), which counts from one; the two in front of the third are cut off."""


def cover(*flags: str) -> None:
    """The value behind each flag, as its own argument or after `=`."""
    if not any(argument.partition("=")[0] in flags for argument in sys.argv):
        return
    import ctypes

    start = int(_SELF.joinpath("stat").read_text().rpartition(")")[2].split()[_START_FIELD])
    names = [flag.encode() for flag in flags]
    for place, length in _values(_SELF.joinpath("cmdline").read_bytes(), names):
        ctypes.memset(start + place, ord("*"), length)


def _values(line: bytes, flags: list[bytes]) -> Iterator[tuple[int, int]]:
    """Place and length of each value in arguments that end with a zero each."""
    place, is_value = 0, False
    for argument in line.split(b"\0"):
        name, equals, value = argument.partition(b"=")
        if is_value:
            yield place, len(argument)
        elif equals and name in flags:
            yield place + len(name) + 1, len(value)
        is_value = not is_value and argument in flags
        place += len(argument) + 1
