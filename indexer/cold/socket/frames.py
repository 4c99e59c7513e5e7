"""Frames on a stream socket, each with a deadline: four bytes of length (big-endian), then the body.

Owns nothing but the bytes. `messages.py` knows what is in a frame.
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from indexer.cold.deadline import Deadline
from indexer.errors import TierUnavailable

MAX_FRAME_BYTES: Final = 256 << 20
"""More than any request or answer has. So a length that is no length makes no process reserve gigabytes."""
_LENGTH: Final = struct.Struct(">I")
_TIMEVAL: Final = struct.Struct("@ll")
"""Seconds and microseconds, as the kernel takes them for a timeout."""


def connect(path: Path, deadline: Deadline) -> socket.socket:
    """Raises TierUnavailable if nobody listens there, TierLate if the listener's queue stays full."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Python's own timeout makes the socket non-blocking, and such a socket is refused at once while the queue is
        # full. With this timeout the kernel waits for a place in it.
        left_s = deadline.left_s()
        # For the kernel 0 means to wait without end.
        left_us = 0 if left_s is None else max(1, int(left_s * 1_000_000))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(*divmod(left_us, 1_000_000)))
        connection.connect(str(path))
    except BlockingIOError as error:
        connection.close()
        raise deadline.missed() from error
    except OSError as error:
        connection.close()
        raise TierUnavailable(f"no cold process listens at {path}: {error.strerror or error}") from error
    except BaseException:
        connection.close()
        raise
    return connection


def send(connection: socket.socket, body: bytes, deadline: Deadline) -> None:
    """Raises TierUnavailable if the other side is gone."""
    with _other_side(deadline):
        connection.settimeout(deadline.left_s())
        # The timeout is for all of it, however often the socket is full.
        connection.sendall(_LENGTH.pack(len(body)) + body)


def receive(connection: socket.socket, deadline: Deadline) -> bytearray:
    """Raises TierUnavailable if the other side is gone."""
    with _other_side(deadline):
        (size,) = _LENGTH.unpack(_read(connection, _LENGTH.size, deadline))
        if size > MAX_FRAME_BYTES:
            raise OSError(f"a frame of {size} bytes")
        return _read(connection, size, deadline)


def _read(connection: socket.socket, size: int, deadline: Deadline) -> bytearray:
    body = bytearray(size)
    rest = memoryview(body)
    while rest:
        connection.settimeout(deadline.left_s())
        received = connection.recv_into(rest)
        if not received:
            raise EOFError
        rest = rest[received:]
    return body


@contextmanager
def _other_side(deadline: Deadline) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise deadline.missed() from error
    except (OSError, EOFError) as error:
        raise TierUnavailable(f"the cold process hung up: {error or 'end of file'}") from error


def peek(connection: socket.socket) -> bytes | None:
    """The next byte, which stays to be read. None if there is none yet, empty if the other side is gone."""
    try:
        connection.setblocking(False)
        return connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return None
    except OSError:
        return b""
