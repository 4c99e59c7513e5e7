"""Trains on a disk that gets full, and goes on when it is larger: `FOLDER EVENTS CONFIG`.

It has a mount namespace of its own, which ends with it. The exit status REFUSED means that this system does not
let it mount a disk.
"""

import ctypes
import io
import os
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

from nearline import cli

REFUSED = 77
SIZE = "size=700k"
"""Room for two checkpoints, not for three."""
_NEW_MOUNTS, _NEW_USERS = 0x0002_0000, 0x1000_0000
"""CLONE_NEWNS and CLONE_NEWUSER of sched.h."""


def main(folder: Path, events: str, config: str) -> int:
    if not _own_mounts() or not _mount("-t", "tmpfs", "-o", SIZE, "tmpfs", str(folder)):
        return REFUSED
    status, errors = _train(folder, events, config)
    assert status == 1
    assert "is full; make room and go on with --resume" in errors
    assert errors.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == [".package.training"], "nothing half-written"
    assert _mount("-o", "remount,size=100m", str(folder))
    status, _ = _train(folder, events, config, "--resume")
    assert status == 0
    assert [path.name for path in folder.iterdir()] == ["package"]
    return 0


def _train(folder: Path, events: str, config: str, *more: str) -> tuple[int, str]:
    """The exit status of the command, and its errors."""
    arguments = ["--events", events, "--out", str(folder / "package"), "--config", config, "--tokens", "12000", *more]
    sys.argv = ["nearline", "train", *arguments]
    errors = io.StringIO()
    try:
        with redirect_stderr(errors):
            cli.main()
    except SystemExit as ended:
        print(errors.getvalue(), flush=True)
        return int(ended.code or 0), errors.getvalue()
    raise AssertionError("a command ends with its exit status")


def _own_mounts() -> bool:
    """As `unshare --user --map-root-user --mount` gives; False where the system refuses."""
    users, groups = os.getuid(), os.getgid()
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_USERS | _NEW_MOUNTS) != 0:
        print(os.strerror(ctypes.get_errno()), flush=True)
        return False
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {users} 1")
        Path("/proc/self/gid_map").write_text(f"0 {groups} 1")
    except OSError as error:
        print(error, flush=True)
        return False
    return _mount("--make-rprivate", "/")


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
