"""How the processes of an instance are seen, and to which stage they belong."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nearline.monitor.judgement import ProcessSeen
from nearline.monitor.processes import STEADY_S, ProcessWatch
from nearline.monitor.seen import followed_stages, stages_seen
from nearline.settings.instance import Instance, ProcessInfo, locked, write_instance
from schemas.ids import Generation
from streams.kafka.heartbeat import HeartbeatFile
from tests.kit.data.generations import two_live
from tests.kit.running import frozen

ME = os.getpid()


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def write(folder: Path, *processes: ProcessInfo) -> None:
    write_instance(folder, Instance(ME, "", "a-1", "", None, None, False, list(processes), "2026-01-05T10:00:00Z"))


def test_states_last_from_the_look_that_saw_them_first(tmp_path: Path, sleeper: "subprocess.Popen[bytes]") -> None:
    now_s = 0.0
    watch = ProcessWatch(tmp_path, lambda: now_s)
    assert watch.look() == [], "nothing runs here"
    processes = [ProcessInfo("contexts-0", sleeper.pid, 0), ProcessInfo("trending", None, 2)]
    with locked(tmp_path):
        write(tmp_path, *processes)
        watch.look()
        now_s = 4.0
        running = ProcessSeen("contexts-0", sleeper.pid, "running", 4.0)
        assert watch.look() == [running, ProcessSeen("trending", None, "gone", 4.0, restarts=2, unsteady_s=4.0)]
        with frozen(sleeper.pid):
            assert watch.look()[0] == running._replace(state="stopped", for_s=0.0)
            now_s = 5.5
            assert watch.look()[0] == running._replace(state="stopped", for_s=1.5, unsteady_s=1.5)
        write(tmp_path, processes[0], ProcessInfo("trending", ME, 3))
        assert watch.look()[1] == ProcessSeen("trending", ME, "running", 0.0, restarts=3, ends=1, unsteady_s=5.5)


def test_ends_in_a_row_are_counted_until_it_has_run_for_a_while_or_has_worked(tmp_path: Path) -> None:
    now_s = 0.0
    watch = ProcessWatch(tmp_path, lambda: now_s)

    def ends(pid: int | None, restarts: int, name: str = "serve") -> tuple[int, float]:
        (seen,) = watch.look_at([ProcessInfo(name, pid, restarts)])
        return seen.ends, seen.unsteady_s

    assert ends(ME, 5) == (0, 0.0), "what was before nobody has seen"
    now_s = 10.0
    assert ends(ME, 5) == (0, 0.0), "it has not run for long, and has not ended"
    now_s = 11.0
    assert ends(None, 5) == (0, 1.0)
    assert ends(ME, 6) == (1, 1.0)
    now_s = 18.0
    assert ends(ME, 8) == (3, 8.0)
    now_s = 11.0 + STEADY_S
    assert ends(ME, 8) == (0, 0.0)
    assert ends(None, 2) == (0, 0.0), "of another one with this name"

    assert ends(ME, 0, "encode-blue-0") == (0, 0.0)
    assert ends(ME, 3, "encode-blue-0") == (3, 0.0)
    HeartbeatFile(tmp_path, "encode-blue-0", "post").start()
    assert ends(ME, 3, "encode-blue-0") == (0, 0.0), "it is at work"


def test_whoever_looks_meanwhile_takes_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = ProcessWatch(tmp_path, lambda: 1.0)

    def looked_at_meanwhile(*_: object) -> dict[str, object]:
        watch.look_at([])
        return {}

    monkeypatch.setattr("nearline.monitor.processes.read_heartbeats", looked_at_meanwhile)
    seen = watch.look_at([ProcessInfo("trending", None, 0), ProcessInfo("contexts-0", None, 0)])
    assert [(each.name, each.for_s) for each in seen] == [("trending", 0.0), ("contexts-0", 0.0)]


def test_work_is_that_of_the_newest_loop_of_this_process(tmp_path: Path) -> None:
    with locked(tmp_path):
        write(tmp_path, ProcessInfo("encode-blue-0", ME, 0), ProcessInfo("encode-blue-1", ME + 1, 0))
        for name, loop in (("encode-blue-0", "post"), ("encode-blue-0", "member"), ("encode-blue-1", "post")):
            HeartbeatFile(tmp_path, name, loop).start()
        os.utime(tmp_path / "pulse" / "encode-blue-0" / "post.worked", (1, 1))
        own, other = ProcessWatch(tmp_path).look()
    assert own.idle_s is not None
    assert own.idle_s < 60
    assert other.idle_s is None, "what is in its files is of the process before"


def test_each_process_belongs_to_the_stage_of_the_generation_at_its_place() -> None:
    names = ("broker", "contexts-0", "contexts-1", "encode-blue-0", "cold-green", "serve-0", "monitor", "unheard-of")
    processes = [ProcessSeen(name, ME, "running") for name in names]
    seen = stages_seen(followed_stages(two_live("kept")), processes, None)
    assert [(each.stage, each.generation, [process.name for process in each.processes]) for each in seen] == [
        ("broker", None, ["broker"]),
        ("contexts", None, ["contexts-0", "contexts-1"]),
        ("trending", None, []),
        ("encode", Generation("a-1"), ["encode-blue-0"]),
        ("encode", Generation("b-2"), []),
        ("index", Generation("a-1"), []),
        ("index", Generation("b-2"), ["cold-green"]),
        ("serve", None, ["serve-0"]),
        ("monitor", None, ["monitor"]),
    ]
    assert [each.state for each in seen if each.generation == "b-2"] == ["kept", "kept"]
