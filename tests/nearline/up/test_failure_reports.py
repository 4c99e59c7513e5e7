"""From a process that cannot go on to what `nearline up` says of it."""

import os
import sys
from pathlib import Path
from threading import Event

import pytest
from aiokafka.errors import NodeNotReadyError
from structlog.testing import capture_logs

from nearline import children
from nearline.errors import BadSettings
from nearline.ports import free_ports
from nearline.settings.loading import instance_settings_file, write_settings
from nearline.settings.settings import Settings
from nearline.up.build import build
from nearline.up.failure_reports import FailureReport, StartTracker, failure_report_of, write_failure_report
from nearline.up.supervisor import Part, Supervisor
from schemas.topics import core_topics
from streams.errors import KafkaUnavailable
from streams.kafka import transactional_loop as transactional
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings
from streams.trending.stage import EXIT_STATUS
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.running import in_thread
from tests.kit.waiting import until


def test_up_says_in_one_sentence_why_a_process_does_not_start(tmp_path: Path) -> None:
    write_settings(Settings(data_dir=tmp_path), instance_settings_file(tmp_path))
    command = [sys.executable, "-m", "nearline.up.process", "encode-blue", str(tmp_path)]
    supervisor = Supervisor()
    with capture_logs() as log, (tmp_path / "output").open("wb") as output:
        part = Part(
            "encode-blue",
            lambda: children.spawn(command, output=output, dies_with_parent=True),
            failure_report_of(tmp_path, "encode-blue"),
        )
        supervisor.start(part)

        def is_said() -> bool:
            supervisor.look()
            return any(line["log_level"] == "error" for line in log)

        try:
            until(is_said, "the reason to be said", 120)
        finally:
            supervisor.drain(["encode-blue"], 0)
    (sentence,) = [line["event"] for line in log if line["log_level"] == "error"]
    assert sentence.startswith(
        "encode-blue has ended 3 times at its start: encode-blue is no process; there are, for example: contexts-0,"
    )


def test_trending_says_why_it_leaves(tmp_path: Path) -> None:
    """Faust raises nothing through its agents, so that it leaves by itself."""
    kafka = KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_ports(1)[0]}")
    write_settings(Settings(data_dir=tmp_path, kafka=kafka), instance_settings_file(tmp_path))
    command = [sys.executable, "-m", "nearline.up.process", "trending", str(tmp_path)]
    with (tmp_path / "output").open("wb") as output:
        process = children.spawn(command, output=output, dies_with_parent=True)
    try:
        assert process.wait(120) == EXIT_STATUS
    finally:
        process.kill()
    failure = failure_report_of(tmp_path, "trending")(process.pid)
    assert failure is not None, (tmp_path / "output").read_text()
    assert failure.sentence.startswith("KafkaConnectionError: Unable to bootstrap")
    assert failure.at_start


def test_a_worker_that_waits_in_vain_for_kafka_is_still_at_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactional, "_CALL_S", 0.1)
    kafka = KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_ports(1)[0]}")
    start_tracker = StartTracker()
    run = build("contexts-0", Settings(data_dir=tmp_path, kafka=kafka), start_tracker, lambda _: None)
    with pytest.raises(KafkaUnavailable):
        run(Event())
    assert start_tracker.is_starting


@pytest.mark.broker
def test_a_worker_with_partitions_is_past_its_start(clean_topics: RunningBroker, tmp_path: Path) -> None:
    kafka = KafkaSettings(bootstrap_servers=clean_topics.bootstrap_servers)
    ensure_topics(kafka, core_topics())
    start_tracker = StartTracker()
    with in_thread(build("contexts-0", Settings(data_dir=tmp_path, kafka=kafka), start_tracker, lambda _: None)):
        until(lambda: not start_tracker.is_starting, "the worker to get its partitions", 60)


def test_a_process_is_at_its_start_until_each_of_its_parts_has_begun() -> None:
    start_tracker = StartTracker()
    assert start_tracker.is_starting, "no part is there yet"
    posts, members = start_tracker.started_callback("post"), start_tracker.started_callback("member")
    for begin in (posts, posts):
        begin()
        assert start_tracker.is_starting
    members()
    assert not start_tracker.is_starting


def test_the_place_of_an_unknown_error_is_shown_once(tmp_path: Path) -> None:
    with capture_logs() as log:
        for error in (
            RuntimeError("a"),
            RuntimeError("a"),
            RuntimeError("b"),
            BadSettings("c"),
            NodeNotReadyError("d"),
        ):
            write_failure_report(error, "encode-blue-0", tmp_path, at_start=False)
    assert [line["exc_info"] is not None for line in log] == [True, False, True, False, True]


def test_the_failure_of_another_process_is_not_taken_for_its_own(tmp_path: Path) -> None:
    failure = failure_report_of(tmp_path, "encode-blue-0")
    assert failure(os.getpid()) is None
    write_failure_report(RuntimeError("several\nlines"), "encode-blue-0", tmp_path, at_start=True)
    assert failure(os.getpid()) == FailureReport(os.getpid(), "RuntimeError: several lines", at_start=True)
    assert failure(os.getpid() + 1) is None
    assert failure_report_of(tmp_path, "cold")(os.getpid()) is None
