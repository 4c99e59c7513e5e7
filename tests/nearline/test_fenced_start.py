import subprocess
import sys
from pathlib import Path

_SAYS = """
import time
print("Completing purgatory items up to offset 7 and epoch 2.")
print("Fencing broker 1 at epoch 5 because its session has timed out.")
print("Read-write operation maybeFenceStaleBroker(9) will be completed when the log reaches offset 12.", flush=True)
{then}
time.sleep(60)
"""
_COMMITS = "print('Completing purgatory items up to offset 12 and epoch 2.', flush=True)"


def test_the_broker_begins_under_the_same_pid_once_the_old_one_is_fenced(tmp_path: Path) -> None:
    broker = "import os; print(os.getpid())"
    process = _start(tmp_path, _SAYS.format(then=_COMMITS), broker)
    said, _ = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, f"{process.pid}\n")


def test_nothing_to_fence_delays_the_broker_and_no_more(tmp_path: Path) -> None:
    active = "import time; print('Performing controller activation.', flush=True); time.sleep(60)"
    said, _ = _start(tmp_path, active, "print('begun')").communicate(timeout=30)
    assert said == "begun\n"


def test_a_controller_that_ends_before_its_record_is_committed_has_fenced_nothing(tmp_path: Path) -> None:
    said, errors = _start(tmp_path, _SAYS.format(then="raise SystemExit"), "print('begun')").communicate(timeout=30)
    assert said == ""
    assert errors.startswith("the controller did not fence the broker of before")


def test_a_controller_that_ends_keeps_the_broker_from_starting(tmp_path: Path) -> None:
    """A broker that started all the same would leave transactions open."""
    process = _start(tmp_path, "print('the port is taken')", "print('begun')")
    said, errors = process.communicate(timeout=30)
    assert (process.returncode, said) == (1, "")
    assert errors == f"the controller did not fence the broker of before; what it said is in {tmp_path / 'output'}\n"
    assert (tmp_path / "output").read_text() == "the port is taken\n"


def _start(folder: Path, controller: str, broker: str) -> subprocess.Popen[str]:
    python = [sys.executable, "-c"]
    command = [sys.executable, "-m", "nearline.fenced_start", str(folder / "output")]
    return subprocess.Popen(
        [*command, *python, controller, "--", *python, broker],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
