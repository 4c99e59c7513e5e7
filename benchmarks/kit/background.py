"""Runs a load or a probe beside a measurement."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def in_background(run: Callable[[threading.Event], None]) -> Iterator[None]:
    """`run` in a thread, until the block is left: it returns soon after its event is set. What it raises is raised at
    the end of the block: what was measured without it is no figure."""
    stop = threading.Event()
    failures: list[Exception] = []

    def target() -> None:
        try:
            run(stop)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]
