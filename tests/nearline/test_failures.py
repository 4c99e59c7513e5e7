"""From a process that cannot go on to what `nearline up` says of it."""

import os
import sys
from pathlib import Path

from structlog.testing import capture_logs

from nearline import children
from nearline.errors import BadSettings
from nearline.failures import Failure, failure_of, report
from nearline.settings import Settings, write_for_children
from nearline.supervisor import Part, Supervisor
from tests.waiting import until


def test_up_says_in_one_sentence_why_a_process_does_not_start(tmp_path: Path) -> None:
    write_for_children(Settings(data_dir=tmp_path))
    command = [sys.executable, "-m", "nearline.process", "encode-7", str(tmp_path)]
    supervisor = Supervisor()
    with capture_logs() as log, (tmp_path / "output").open("wb") as output:
        part = Part(
            "encode-7",
            lambda: children.spawn(command, output=output, dies_with_parent=True),
            failure_of(tmp_path, "encode-7"),
        )
        supervisor.start(part)

        def is_said() -> bool:
            supervisor.look()
            return any(line["log_level"] == "error" for line in log)

        try:
            until(is_said, "the reason to be said", 120)
        finally:
            supervisor.drain(["encode-7"], 0)
    (sentence,) = [line["event"] for line in log if line["log_level"] == "error"]
    assert sentence.startswith(
        "encode-7 has ended 3 times at its start: encode-7 is no process; there are: contexts-0,"
    )


def test_the_place_of_an_unknown_error_is_shown_once(tmp_path: Path) -> None:
    with capture_logs() as log:
        for error in (RuntimeError("a"), RuntimeError("a"), RuntimeError("b"), BadSettings("c")):
            report(error, "encode-0", tmp_path, at_start=False)
    assert [line["exc_info"] is not None for line in log] == [True, False, True, False]


def test_the_failure_of_another_process_is_not_taken_for_its_own(tmp_path: Path) -> None:
    failure = failure_of(tmp_path, "encode-0")
    assert failure(os.getpid()) is None
    report(RuntimeError("several\nlines"), "encode-0", tmp_path, at_start=True)
    assert failure(os.getpid()) == Failure(os.getpid(), "RuntimeError: several lines", at_start=True)
    assert failure(os.getpid() + 1) is None
    assert failure_of(tmp_path, "cold")(os.getpid()) is None
