"""The supervisor over small real processes."""

import errno
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import structlog

from nearline import children
from nearline.broker import embedded as broker
from nearline.up.failure_reports import FailureReport
from nearline.up.supervisor import LONGEST_DELAY_S, START_AGAIN, STEADY_S, Part, Supervisor
from tests.kit.waiting import until

SLEEPS = "import time; time.sleep(600)"
LEAVES = "raise SystemExit(1)"
STUBBORN = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    supervisor = Supervisor()
    yield supervisor
    supervisor.drain([process.name for process in supervisor.processes], 0)


def test_what_is_killed_is_started_again_and_counted(supervisor: Supervisor) -> None:
    supervisor.start(_part("stage", SLEEPS))
    first = _pid(supervisor)
    psutil.Process(first).kill()
    _until_running_again(supervisor, first)
    assert supervisor.processes[0].restarts == 1


def test_what_keeps_dying_is_started_less_and_less_often() -> None:
    now = [0.0]
    launched: list[float] = []
    part = _part("stage", LEAVES)

    def launch() -> children.Child:
        launched.append(now[0])
        child = part.launch()
        child.wait()
        return child

    supervisor = Supervisor(clock=lambda: now[0])
    supervisor.start(Part("stage", launch))
    while now[0] < 30:
        supervisor.look()
        now[0] += 0.1
    delays = [round(after - before) for before, after in pairwise(launched)]
    assert delays[:5] == [0, 1, 1, 2, 3], "the first restart is at once, each one waits longer"
    assert set(delays[5:]) == {5}, "and none longer than 5 s"


@pytest.mark.parametrize("failure", [OSError(errno.ENOMEM, "Cannot allocate memory"), MemoryError()])
@pytest.mark.parametrize("failing", [(1, 2), (2, 3)], ids=["first launch", "relaunch"])
def test_a_launch_that_fails_is_tried_again_and_ends_nobody(failure: Exception, failing: tuple[int, int]) -> None:
    now = [0.0]
    tried: list[float] = []
    part = _part("stage", SLEEPS)

    def launch() -> children.Child:
        tried.append(now[0])
        if len(tried) in failing:
            raise failure
        return part.launch()

    supervisor = Supervisor(clock=lambda: now[0])
    supervisor.start(_part("other", SLEEPS))
    supervisor.start(Part("stage", launch))
    try:
        if 1 not in failing:
            first = psutil.Process(_pid(supervisor, 1))
            first.kill()
            first.wait()
        while len(tried) <= max(failing):
            supervisor.look()
            now[0] += 0.1
        other, stage = supervisor.processes
    finally:
        supervisor.drain(["other", "stage"], 0)
    assert (stage.pid is None, stage.restarts, other.restarts) == (False, 1 not in failing, 0)
    delays = [round(after - before, 1) for before, after in pairwise(tried)]
    assert delays == sorted(set(delays)), "each time it waits longer, as for what keeps dying"


@pytest.mark.parametrize("start_s", [0.0, STEADY_S])
def test_what_ends_a_process_at_its_start_three_times_is_said_once(start_s: float) -> None:
    """However long the start takes on a busy machine."""
    reasons = iter(["no model", *["no GPU"] * 4, "no model"])
    log = _errors_of_restarts(6, start_s, lambda pid: FailureReport(pid, next(reasons), at_start=True))
    assert log == ["encode-0 has ended 3 times at its start: no GPU"]


def test_who_does_not_say_why_it_ends_at_its_start_is_named_with_its_status() -> None:
    log = _errors_of_restarts(3, 0, lambda _: None)
    assert log == ["encode-0 has ended 3 times at its start: it ended with status 1"]


@pytest.mark.parametrize("failure", [None, FailureReport(1, "an outage", at_start=False)])
def test_what_ends_a_process_after_a_long_time_is_no_failure_to_start(failure: FailureReport | None) -> None:
    assert _errors_of_restarts(4, STEADY_S, lambda _: failure) == []


def test_a_broker_that_does_not_serve_is_named_after_each_launch(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fence that waits says so in the broker's own log alone."""
    monkeypatch.setattr(broker, "_SLOW_S", 0.0)

    class SleepingBroker(broker.EmbeddedBroker):
        def launch(self, *, dies_with_parent: bool) -> children.Child:
            return children.spawn(_python(SLEEPS), dies_with_parent=dies_with_parent)

    sentence = f"the broker does not serve after 0 s; what it waits for is in {tmp_path / 'output.log'}"
    with structlog.testing.capture_logs() as log:

        def until_said(times: int) -> None:
            until(lambda: [line["event"] for line in log].count(sentence) == times, "the broker to be named")

        supervisor.start(Part("broker", SleepingBroker(tmp_path).launch_and_warn_if_slow))
        until_said(1)
        first = _pid(supervisor)
        psutil.Process(first).kill()
        _until_running_again(supervisor, first)
        until_said(2)


def test_a_broker_that_ends_is_watched_no_longer(tmp_path: Path) -> None:
    class LeavingBroker(broker.EmbeddedBroker):
        def launch(self, *, dies_with_parent: bool) -> children.Child:
            return children.spawn(_python(LEAVES), dies_with_parent=dies_with_parent)

    LeavingBroker(tmp_path).launch_and_warn_if_slow().wait(60)
    until(lambda: "slow-broker" not in [thread.name for thread in threading.enumerate()], "the watch to end")


def _errors_of_restarts(number: int, lives_s: float, failure: Callable[[int], FailureReport | None]) -> list[str]:
    """What is logged as errors of a process that ends so many times, each time after `lives_s`."""
    now = [0.0]

    def launch() -> children.Child:
        child = children.spawn(_python(LEAVES), dies_with_parent=True)
        child.wait()
        return child

    supervisor = Supervisor(clock=lambda: now[0])
    with structlog.testing.capture_logs() as log:
        supervisor.start(Part("encode-0", launch, failure))
        while supervisor.processes[0].restarts < number:
            now[0] += max(lives_s, LONGEST_DELAY_S)
            supervisor.look()
    return [line["event"] for line in log if line["log_level"] == "error"]


def test_drain_asks_first_and_kills_what_does_not_listen(supervisor: Supervisor, tmp_path: Path) -> None:
    output_file = tmp_path / "said"
    with output_file.open("wb") as output:
        supervisor.start(
            Part("stubborn", lambda: children.spawn(_python(STUBBORN), output=output, dies_with_parent=True))
        )
    supervisor.start(_part("polite", SLEEPS))
    until(lambda: output_file.read_text() == "up\n", "the stubborn process to ignore SIGTERM")
    processes = [psutil.Process(process.pid) for process in supervisor.processes]
    supervisor.drain(["stubborn", "polite"], 0.3)
    assert supervisor.processes == []
    assert not any(process.is_running() for process in processes)


def test_drain_leaves_the_others_alone(supervisor: Supervisor) -> None:
    supervisor.start(_part("stage", SLEEPS))
    supervisor.start(_part("broker", SLEEPS))
    supervisor.drain(["stage"], 5)
    supervisor.look()
    assert [(process.name, process.restarts) for process in supervisor.processes] == [("broker", 0)]


def test_what_wants_to_be_started_again_is_at_once_and_that_counts_for_nothing() -> None:
    launched: list[children.Child] = []

    def launch() -> children.Child:
        launched.append(children.spawn(_python(f"raise SystemExit({START_AGAIN})"), dies_with_parent=True))
        launched[-1].wait()
        return launched[-1]

    supervisor = Supervisor(clock=lambda: 0.0)
    with structlog.testing.capture_logs() as log:
        supervisor.start(Part("encode-0", launch))
        for _ in range(4):
            supervisor.look()
    assert (len(launched), supervisor.processes[0].restarts, log) == (5, 0, [])


@pytest.mark.parametrize("code", [SLEEPS, STUBBORN, LEAVES])
def test_a_part_that_is_ended_is_not_started_again_and_holds_up_nobody(code: str, tmp_path: Path) -> None:
    now = [0.0]
    output_file = tmp_path / "said"
    supervisor = Supervisor(clock=lambda: now[0])
    with output_file.open("wb") as output:
        supervisor.start(Part("a", lambda: children.spawn(_python(code), output=output, dies_with_parent=True)))
    process = psutil.Process(_pid(supervisor))
    if code == STUBBORN:
        until(lambda: output_file.read_text() == "up\n", "the stubborn process to ignore SIGTERM")
    supervisor.end("a", 5.0)
    if code == STUBBORN:
        now[0] = 4.0
        supervisor.look()
        assert process.is_running()
        now[0] = 5.0

    def is_over() -> bool:
        supervisor.look()
        return supervisor.processes == []

    until(is_over, "the part to be forgotten")
    assert not process.is_running()


def test_a_child_dies_with_the_process_that_started_it() -> None:
    code = f"""
import sys
from nearline import children
child = children.spawn([sys.executable, "-c", {SLEEPS!r}], dies_with_parent=True)
print(child.pid, flush=True)
child.wait()
"""
    parent = psutil.Popen([sys.executable, "-c", code], stdout=-1)
    with parent.stdout:
        child = psutil.Process(int(parent.stdout.readline()))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child to die")


def test_a_pid_that_was_given_out_again_is_not_taken_for_ours(supervisor: Supervisor) -> None:
    supervisor.start(_part("stage", SLEEPS))
    pid = _pid(supervisor)
    until(lambda: children.find(pid, lambda command: SLEEPS in command) is not None, "the process to show its command")
    assert children.find(pid, lambda command: "something else" in command) is None
    supervisor.drain(["stage"], 5)
    assert children.find(pid, lambda command: True) is None


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def _part(name: str, code: str) -> Part:
    return Part(name, lambda: children.spawn(_python(code), dies_with_parent=True))


def _pid(supervisor: Supervisor, number: int = 0) -> int:
    pid = supervisor.processes[number].pid
    assert pid is not None
    return pid


def _until_running_again(supervisor: Supervisor, first: int) -> None:
    def again() -> bool:
        supervisor.look()
        return supervisor.processes[0].pid not in (None, first)

    until(again, "a new process in the place of the killed one")
