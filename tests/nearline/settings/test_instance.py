"""Whether an instance runs is asked of the lock on its data folder."""

import fcntl
import os
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from nearline.errors import AlreadyRuns, NotRunning
from nearline.settings.instance import (
    Instance,
    locked,
    read_instance,
    read_last_instance,
    shared,
    write_instance,
)

INSTANCE = Instance(os.getpid(), "127.0.0.1:1", "g", "p", None, None, False, [], "2026-01-05T10:00:00Z")
HOLDS = """
import sys
from pathlib import Path
from nearline.settings.instance import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_pid_that_was_given_out_again_is_no_instance(tmp_path: Path) -> None:
    write_instance(tmp_path, INSTANCE)
    with pytest.raises(NotRunning):
        read_instance(tmp_path)
    with locked(tmp_path):
        assert read_instance(tmp_path) == INSTANCE
    with pytest.raises(NotRunning):
        read_instance(tmp_path)
    assert read_last_instance(tmp_path) == INSTANCE


def test_an_instance_ends_with_its_process_however_it_ends(tmp_path: Path) -> None:
    write_instance(tmp_path, INSTANCE)
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        assert read_instance(tmp_path) == INSTANCE
        with pytest.raises(AlreadyRuns), locked(tmp_path):
            pass
        process.kill()
    with pytest.raises(NotRunning):
        read_instance(tmp_path)


def test_who_only_looks_keeps_nobody_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looker = (tmp_path / "lock").open("w")
    fcntl.flock(looker, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda _: looker.close())
    with locked(tmp_path):
        assert looker.closed


def test_several_may_run_stages_on_a_folder_but_not_the_same_ones_and_not_beside_up(tmp_path: Path) -> None:
    with shared(tmp_path, ["encode-blue-0", "encode-green-0"]), shared(tmp_path, ["cold-blue"]):
        _refused("another nearline run for encode-green-0", shared(tmp_path, ["encode-green-0"]), tmp_path)
        _refused("nearline run", locked(tmp_path), tmp_path)
        write_instance(tmp_path, INSTANCE)
        with pytest.raises(NotRunning):
            read_instance(tmp_path)
    with locked(tmp_path):
        _refused("nearline up", shared(tmp_path, ["cold-blue"]), tmp_path)
        _refused("another nearline up", locked(tmp_path), tmp_path)


def _refused(what: str, lock: AbstractContextManager[None], data_dir: Path) -> None:
    with pytest.raises(AlreadyRuns) as refused, lock:
        pass
    assert str(refused.value).startswith(f"{what} runs on {data_dir}; stop it, or")
