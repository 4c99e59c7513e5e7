"""What `nearline up` says of itself in its data folder, and a stop while its broker is made."""

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nearline.settings.instance import read_last_instance
from nearline.settings.settings import Settings
from nearline.up.runtime import Runtime
from retriever.settings import ServeSettings
from streams.generations.state import Generations
from streams.settings import KafkaSettings
from tests.kit.instances import NO_BROKER, data_folder, processes_of


def test_a_data_folder_that_cannot_be_written_ends_nothing_and_is_tried_again(tmp_path: Path) -> None:
    """As on a full disk: the processes go on, or are started again, as soon as there is room."""
    data_dir = tmp_path / "away"
    kafka, serve = KafkaSettings(bootstrap_servers=NO_BROKER), ServeSettings(port=20_000, grpc_port=20_001)
    runtime = Runtime(Settings(data_dir=data_dir, kafka=kafka, serve=serve), None, "none")
    for _ in range(2):
        runtime._write_instance(Generations())
    data_dir.mkdir()
    runtime._write_instance(Generations())
    assert read_last_instance(data_dir).bootstrap_servers == NO_BROKER


def test_a_stop_while_the_broker_is_made_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes where it hurts: while Python makes the process that formats the storage."""
    run = subprocess.run

    def run_after_a_signal(command: list[str], **options: Any) -> Any:
        if "kafka.tools.StorageTool" in command:
            signal.raise_signal(signal.SIGTERM)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", run_after_a_signal)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with data_folder() as data_dir:
        serve = ServeSettings(port=20_000, grpc_port=20_001)
        try:
            Runtime(Settings(data_dir=data_dir, serve=serve), None, "none").run()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        assert (data_dir / "kafka" / "log" / "meta.properties").exists(), "what was begun is done to its end"
        assert processes_of(data_dir) == []
