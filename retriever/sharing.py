"""When a worker that shares its port with others begins to take questions.

The kernel gives connections to every process that listens, whether it is ready or not. So a worker that has just been
started listens when its answers are whole. If no other worker listens, it does so at once: an answer in which something
may be missing is better than none.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_LOOK_EVERY_S: Final = 0.2
_CONNECT_S: Final = 1.0


async def wait_for_turn(host: str, port: int, is_ready: Callable[[], bool], stopped: asyncio.Event) -> bool:
    """True as soon as this worker should listen at the port, False if it is stopped before that."""
    while not stopped.is_set():
        if is_ready() or not await _somebody_listens(host, port):
            return True
        with suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), _LOOK_EVERY_S)
    return False


async def _somebody_listens(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), _CONNECT_S)
    except TimeoutError:
        return True  # somebody whose backlog is full
    except OSError:
        return False
    writer.close()
    return True
