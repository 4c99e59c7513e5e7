"""A copy of this repository as it was at an earlier commit, to measure today's code against it in the same run."""

import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parents[2]


@contextmanager
def checked_out(commit: str, also: Sequence[str]) -> Iterator[Path]:
    """A temporary folder with the files of the commit, and `also` some files of today. Ends the benchmark with a
    sentence if the repository does not hold the commit."""
    archive = subprocess.run(
        ["git", "-C", str(_ROOT), "archive", "--format=tar", commit], capture_output=True, check=False
    )
    if archive.returncode != 0:
        raise SystemExit(
            f"This figure compares with commit {commit[:7]}, which is not in this repository. A clone with its whole "
            "history has it: git fetch --unshallow"
        )
    with tempfile.TemporaryDirectory(prefix="nearline-benchmark-") as temporary:
        folder = Path(temporary)
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(folder, filter="data")
        for path in also:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_ROOT / path, folder / path)
        yield folder
