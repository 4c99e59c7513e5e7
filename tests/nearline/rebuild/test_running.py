"""`nearline run contexts` starts the processes of a rebuilt version when the log says that it is prepared.

It ends them when nobody reads that version any more."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from schemas import topics
from schemas.ids import ContextVersion
from streams.contexts.rows_folder import rows_folder
from streams.generations.log import read_generations
from tests.kit.commands import Commands
from tests.kit.data.events import post_created
from tests.kit.instances import data_folder, stage_processes
from tests.kit.kafka.stages import ContextStageSetup
from tests.kit.kafka.topics import read_topic
from tests.kit.waiting import until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

SECOND = ContextVersion(2)


def names(folder: Path) -> set[str]:
    """Of the processes of stages."""
    return set(stage_processes(folder))


def test_processes_come_and_go_with_their_version(contexts: ContextStageSetup) -> None:
    contexts.send(post_created("p1", "hello"), post_created("p2", "world"))
    with data_folder() as folder:
        command = [sys.executable, "-m", "nearline", "run", "contexts", "--data-dir", folder]
        running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            until(lambda: names(folder) == {"contexts-0"}, "the first version to run", 120)
            done = Commands(folder)("rebuild", "contexts")
            assert done.status == 0, done.out + done.err
            assert names(folder) == {"contexts-0", "contexts-v2-0"}
            assert rows_folder(folder, "0", SECOND).exists()
            made = {message.key() for message in read_topic(contexts.kafka, topics.context_names(SECOND).post_contexts)}
            assert made == {b"p1", b"p2"}
            assert "version 2 is given up and deleted\n" in Commands(folder)("rebuild", "contexts", "--drop").out
            until(lambda: names(folder) == {"contexts-0"}, "its process to end", 120)
            until(lambda: not rows_folder(folder, "0", SECOND).exists(), "its rows to be removed", 120)
            assert read_generations(contexts.kafka).context_versions == [topics.FIRST_CONTEXTS]
            running.send_signal(signal.SIGTERM)
            assert running.wait(60) == 0
        finally:
            if running.poll() is None:
                running.kill()
            running.wait()
