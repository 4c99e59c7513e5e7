"""A cold process with a small tier, which a test can freeze."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kit.running import child, frozen


class Owner:
    def __init__(self, process: subprocess.Popen[str], path: Path) -> None:
        self._process = process
        self.path = path
        """Of its socket."""

    @contextmanager
    def frozen(self) -> Iterator[None]:
        with frozen(self._process.pid):
            yield


@contextmanager
def cold_owner(folder: Path) -> Iterator[Owner]:
    """What it holds is said in `children/cold_owner.py`."""
    path = folder / "cold.sock"
    with child("tests.kit.children.cold_owner", str(folder / "cold"), str(path)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Owner(process, path)
