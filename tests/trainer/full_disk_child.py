"""Trains on a disk that gets full, and goes on when it is larger: `unshare --user --map-root-user --mount python -m
tests.trainer.full_disk_child FOLDER EVENTS CONFIG`.

In a mount namespace of its own, which ends with it. Its exit status says whether there may be such a disk.
"""

import subprocess
import sys
from pathlib import Path

REFUSED = 77
SIZE = "size=700k"
"""Of two checkpoints, not of three."""


def main(folder: Path, events: str, config: str) -> int:
    if not _mount("-t", "tmpfs", "-o", SIZE, "tmpfs", str(folder)):
        return REFUSED
    full = _train(folder, events, config)
    print(full.stderr, flush=True)
    assert full.returncode == 1
    assert "is full; make room and go on with --resume" in full.stderr
    assert full.stderr.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == [".package.training"], "nothing half-written"
    assert _mount("-o", "remount,size=100m", str(folder))
    again = _train(folder, events, config, "--resume")
    print(again.stderr, flush=True)
    assert again.returncode == 0
    assert [path.name for path in folder.iterdir()] == ["package"]
    return 0


def _train(folder: Path, events: str, config: str, *more: str) -> subprocess.CompletedProcess[str]:
    arguments = ["--events", events, "--out", str(folder / "package"), "--config", config, "--tokens", "16000", *more]
    command = [sys.executable, "-m", "nearline", "train", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], stderr=subprocess.DEVNULL, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
