"""Ports on this machine: free ones, and whether somebody listens on one."""

import errno
import os
import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from nearline.errors import StartFailed

# Below the range from which the kernel takes ports for outgoing connections. In that range, a client that tries to
# reach a broker that is down could get the broker's own port, connect to itself, and keep the broker from coming back.
_PORTS: Final = range(20_000, 32_000)
_MEND: Final = "choose another serve.port; nearline up has --port for it"
_HOST_MEND: Final = "name an address of this machine as the host"
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


def free_ports_in_a_row(number: int) -> int:
    """The first of so many free ports, each the next one of the last. Raises StartFailed."""
    ports = _range()
    for first in random.sample(ports, min(len(ports), 1000)):
        row = range(first, first + number)
        if row[-1] in ports and all(map(is_free, row)):
            return first
    raise StartFailed(f"no {number} free ports in a row between {ports.start} and {ports.stop - 1} on loopback")


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


def listening_port(host: str, port: int, mend: str = _MEND) -> int:
    """The port itself if it is free; for 0 any free port. Raises StartFailed, with the mend."""
    port = port or free_ports(1)[0]
    _bound(host, port, mend).close()
    return port


@contextmanager
def held(host: str, ports: Sequence[int]) -> Iterator[None]:
    """Holds free ports for several processes of ours that share them (SO_REUSEPORT). Nobody else can take them
    meanwhile, also while none of ours listens. Raises StartFailed."""
    with ExitStack() as stack:
        for port in ports:
            holding = stack.enter_context(_bound(host, port, _MEND))
            # Set after `bind`, which so has refused a port that others share. It never listens, so it gets no
            # connection.
            holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield


def _bound(host: str, port: int, mend: str) -> socket.socket:
    """Raises StartFailed."""
    with ExitStack() as stack:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            sock = stack.enter_context(socket.socket(family, kind, protocol))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        except UnicodeError:
            raise StartFailed(f"cannot listen on {host} port {port}: no name of a machine; {_HOST_MEND}") from None
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                mend = _HOST_MEND
            raise StartFailed(f"cannot listen on {host} port {port}: {error.strerror}; {mend}") from None
        stack.pop_all()
    return sock
