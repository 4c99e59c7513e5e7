"""Targets with a known fault, for the test of the fuzzer itself."""

import time
from pathlib import Path

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
def stands_still_once(data: bytes) -> None:
    """As on a machine that is frozen for a while."""
    marker = Path("stood-still")
    if data[:1] == b"h" and not marker.exists():
        marker.touch()
        time.sleep(60)
