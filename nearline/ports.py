"""Ports on loopback: free ones, and whether somebody listens."""

import os
import random
import socket
from typing import Final

from nearline.errors import StartFailed

# Below the range from which the kernel takes ports for outgoing connections: there, a client that tries again while
# the broker is down could be given the broker's own port, connect to itself, and keep the broker from coming back.
_PORTS: Final = range(20_000, 32_000)
RANGE_VARIABLE: Final = "NEARLINE_PORTS"
"""Such as `20000-25999`: a range of their own for instances that start at the same time, so that no port which is free
when one looks is taken by another before it listens there."""


def free_ports(number: int) -> list[int]:
    """On loopback, where the kernel gives none to outgoing connections. Raises StartFailed."""
    ports = _range()
    free: list[int] = []
    for port in random.sample(ports, min(len(ports), 1000)):
        if is_free(port):
            free.append(port)
        if len(free) == number:
            return free
    raise StartFailed(f"no free port between {ports.start} and {ports.stop - 1} on loopback; end what uses them")


def _range() -> range:
    text = os.environ.get(RANGE_VARIABLE)
    if text is None:
        return _PORTS
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) < 2**16):
        raise StartFailed(f"{RANGE_VARIABLE} in the environment is no range of ports; write it as 20000-25999")
    return range(int(first), int(last) + 1)


def is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def listens(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0
