"""Ports on this machine: free ones, and whether somebody listens on one."""

import os
import random
import socket
from typing import Final

from nearline.errors import StartFailed

# Below the range from which the kernel takes ports for outgoing connections. In that range, a client that tries to
# reach a broker that is down could get the broker's own port, connect to itself, and keep the broker from coming back.
_PORTS: Final = range(20_000, 32_000)
RANGE_VARIABLE: Final = "NEARLINE_PORTS"
"""Such as `20000-25999`. Gives instances that start at the same time separate ranges: otherwise two could choose the
same free port before either listens on it."""


def free_ports(number: int) -> list[int]:
    """Ports that are free on loopback and that the kernel gives to no outgoing connection. Raises StartFailed."""
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


def listening_port(host: str, port: int) -> int:
    """The port itself if it is free; for 0 any free port. Raises StartFailed."""
    if port == 0:
        return free_ports(1)[0]
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
    except OSError as error:
        raise StartFailed(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another with --port"
        ) from None
    return port
