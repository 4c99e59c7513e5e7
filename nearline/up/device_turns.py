"""Says to the encode processes of a machine whether the serving generation's wants the GPU that they share.

On a CPU the priority of threads lets it go first; on a GPU nothing does. So there is a file for each device in the data
folder: the serving one holds its lock, shared, while it has a turn, and that of a generation that is being built looks
before it reads more. A process that dies holds nothing any more. Knows nothing of models and generations.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from encoders.errors import Outcome
from streams.encode.turns import StageEncoder


class DeviceTurns:
    """Of one device. Any thread may call the methods. None of them waits."""

    def __init__(self, data_dir: Path, device: str) -> None:
        self._file = data_dir / "devices" / device
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.touch()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Others see it until the block is left. Whoever looks at the moment when it begins may not: nobody is waited
        for."""
        with self._file.open("rb") as lock:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            yield

    def is_taken(self) -> bool:
        with self._file.open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


class SharedDevice:
    """Implements `StageEncoder`: an encoder whose turns others see, while it goes first."""

    def __init__(self, encoder: StageEncoder, turns: DeviceTurns, goes_first: Callable[[], bool]) -> None:
        self.prepare_posts = encoder.prepare_posts
        self.prepare_members = encoder.prepare_members
        self.prepare_post_texts = encoder.prepare_post_texts
        self._run = encoder.run
        self._turns = turns
        self._goes_first = goes_first

    def run(self, prepared: Any) -> list[Outcome]:
        with self._turns.turn() if self._goes_first() else nullcontext():
            return self._run(prepared)
