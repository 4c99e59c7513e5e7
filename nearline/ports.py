"""Ports on loopback: free ones, and whether somebody listens."""

import random
import socket
from typing import Final

from nearline.errors import StartFailed

# Below the range from which the kernel takes ports for outgoing connections: there, a client that tries again while
# the broker is down could be given the broker's own port, connect to itself, and keep the broker from coming back.
_PORTS: Final = range(20_000, 32_000)


def free_ports(number: int) -> list[int]:
    """On loopback, where the kernel gives none to outgoing connections. Raises StartFailed."""
    found: list[int] = []
    for port in random.sample(_PORTS, 1000):
        if is_free(port):
            found.append(port)
        if len(found) == number:
            return found
    raise StartFailed(f"no free port between {_PORTS.start} and {_PORTS.stop} on loopback; end what uses them")


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
