"""Targets with a known fault, for the test of the fuzzer itself."""

import ctypes
import time
from pathlib import Path
from typing import Any

import atheris


@atheris.instrument_func
def crashes(data: bytes) -> None:
    if data[:2] == b"ab":
        raise KeyError("planted")


@atheris.instrument_func
def hangs(data: bytes) -> None:
    if data[:1] == b"h":
        time.sleep(60)


@atheris.instrument_func
def never_ends(data: bytes) -> None:
    """Nor is any input to blame: something waits for ever when the process leaves."""
    if not _at_exit:
        _at_exit.append(ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: time.sleep(600)))
        ctypes.CDLL(None).__cxa_atexit(_at_exit[0], None, None)


_at_exit: list[Any] = []


@atheris.instrument_func
def stands_still_once(data: bytes) -> None:
    """As on a machine that is frozen for a while."""
    marker = Path("stood-still")
    if data[:1] == b"h" and not marker.exists():
        marker.touch()
        time.sleep(60)
