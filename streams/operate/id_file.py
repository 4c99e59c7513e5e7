"""Reads a file of ids, one a line."""

import sys
from pathlib import Path

from streams.errors import BadFile


def read_ids(argument: str) -> frozenset[bytes]:
    """`argument` is a path, or `-` for standard input. Spaces around an id and blank lines do not count. Raises
    BadFile."""
    name = "stdin" if argument == "-" else argument
    try:
        content = sys.stdin.buffer.read() if argument == "-" else Path(argument).read_bytes()
    except OSError as error:
        raise BadFile(f"{name} cannot be read: {error.strerror}") from error
    ids = frozenset(line.strip() for line in content.splitlines()) - {b""}
    if not ids:
        raise BadFile(f"{name} holds no id; write one a line")
    return ids
