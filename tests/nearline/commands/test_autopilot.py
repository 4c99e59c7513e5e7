"""`nearline autopilot`, and the process that runs while it is on, on a real broker."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

from nearline.autopilot import acts as own
from schemas.generations import AUTOPILOT_KEY, Autopilot, PackageSource
from schemas.topics import GENERATIONS
from streams.generations import acts
from streams.generations.log import change_generations, read_generations
from streams.generations.models import announce
from streams.settings import KafkaSettings
from tests.kit.commands import Commands
from tests.kit.data.generations import AT, next_records
from tests.kit.data.models import model_record
from tests.kit.instances import stage_processes
from tests.kit.kafka.topics import Sender
from tests.kit.waiting import until

pytestmark = pytest.mark.broker

MODEL = model_record("b-2")


@pytest.fixture
def commands(kafka: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """`a-1` serves, and `b-2` is announced."""
    monkeypatch.setenv("NEARLINE_KAFKA__BOOTSTRAP_SERVERS", str(kafka.bootstrap_servers))
    change_generations(kafka, next_records)
    announce(kafka, MODEL)
    return Commands(tmp_path)


def test_it_is_switched_on_and_off_and_says_what_comes_next(commands: Commands, kafka: KafkaSettings) -> None:
    off = commands("autopilot", "status", "--json").json
    assert (off["on"], off["since"], off["next"]["why"], off["acts"]) == (False, None, "it is off", [])
    for _ in range(2):
        assert commands("autopilot", "on", "--by", "me", "--reason", "nightly \x1b[31m").out == "the autopilot is on\n"
    on = commands("autopilot", "status", "--json").json
    assert (on["on"], on["newest_model"], on["work"], on["hindrance"]) == (True, "b-2", None, None)
    assert (on["next"]["what"], on["next"]["generation"], on["next"]["until"]) == ("build", "b-2", None)
    assert [(act["what"], act["who"]) for act in on["acts"]] == [("on", "me")], "the second one changed nothing"
    assert commands("autopilot", "off").out == "the autopilot is off\n"
    refused = commands("autopilot", "on", "--by", "autopilot")
    assert (refused.status, refused.err.split(";")[0]) == (1, "nearline: --by: autopilot is the name of the autopilot")
    assert not read_generations(kafka).autopilot_is_on
    lines = commands("autopilot", "status").out.splitlines()
    assert lines[0].startswith("autopilot     off since ")
    assert lines[1:4] == ["newest model  b-2", "works on      -", "next          wait: it is off"]
    assert lines[5].split() == ["at", "act", "generation", "who", "reason"]
    assert lines[6].split()[1:] == ["on", "-", "me", "nightly", "\\x1b[31m"], "no control character"


def test_status_says_what_it_works_on_and_until_when(commands: Commands, kafka: KafkaSettings) -> None:
    package = acts.Package(MODEL.generation, MODEL.package, MODEL.digest)
    by = acts.By(own.AUTOPILOT, AT, "so")
    change_generations(kafka, lambda state: own.switch(state, by, on=True))
    change_generations(kafka, lambda state: own.begin(state, package, {}, by))
    shown = commands("autopilot", "status", "--json").json
    assert shown["work"] == {"generation": "b-2", "step": "build", "since": "2026-01-05T10:00:00Z"}
    change_generations(kafka, lambda state: acts.ready(state, MODEL.generation, by))
    change_generations(kafka, lambda state: own.hindered(state, "the retriever is away"))
    lines = commands("autopilot", "status").out.splitlines()
    assert lines[2:5] == [
        "works on      b-2: gate, since 2026-01-05T10:00:00Z",
        "next          measure the gate of b-2: it is complete",
        "not possible  the retriever is away; it is tried again",
    ]


def test_a_damaged_record_of_it_is_said_and_mended_by_the_next_act(commands: Commands, kafka: KafkaSettings) -> None:
    commands("autopilot", "on")
    Sender(kafka).send(GENERATIONS, [(AUTOPILOT_KEY.decode(), b"???")])
    shown = commands("autopilot", "status", "--json").json
    assert (shown["on"], len(shown["problems"])) == (True, 1), "the last good state stays"
    change_generations(kafka, next_records)
    shown = commands("autopilot", "status", "--json").json
    assert (shown["on"], shown["problems"]) == (True, [])


def test_where_only_a_damaged_record_is_left_it_is_off(commands: Commands, kafka: KafkaSettings) -> None:
    Sender(kafka).send(GENERATIONS, [(AUTOPILOT_KEY.decode(), b'{"on":1}')])
    shown = commands("autopilot", "status", "--json").json
    assert (shown["on"], len(shown["problems"])) == (False, 1)
    assert read_generations(kafka).contradiction() is None, "to a reader that knows no autopilot it is a damaged record"


@contextmanager
def running_autopilot(folder: Path, kafka: KafkaSettings) -> Iterator["subprocess.Popen[bytes]"]:
    config = folder / "cluster.toml"
    config.write_text(
        f'[kafka]\nbootstrap_servers = "{kafka.bootstrap_servers}"\npartitions = {kafka.partitions}\n'
        "[autopilot]\nlook_every_s = 0.2\n"
    )
    words = ["run", "autopilot", "--config", config, "--data-dir", folder / "data"]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "nearline", *words], stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def children(folder: Path) -> list[psutil.Process]:
    return list(stage_processes(folder / "data").values())


def hindrance(kafka: KafkaSettings) -> str:
    autopilot = read_generations(kafka).autopilot
    return "" if autopilot is None else autopilot.hindrance


def test_nearline_run_keeps_it_running_while_it_is_on(commands: Commands, kafka: KafkaSettings, tmp_path: Path) -> None:
    """There is no registry, so that all it can do is to say so."""
    announce(kafka, replace(MODEL, package=PackageSource(registry=str(tmp_path / "away"))))
    with running_autopilot(tmp_path, kafka) as process:
        assert commands("autopilot", "on").status == 0
        until(lambda: "there is no registry" in hindrance(kafka), "the autopilot to try it", 120, 0.2)
        (child,) = children(tmp_path)
        os.kill(child.pid, signal.SIGKILL)
        change_generations(kafka, lambda state: own.hindered(state, "one was killed"))
        until(lambda: "there is no registry" in hindrance(kafka), "the next one to go on", 120, 0.2)
        # It may be refused while the autopilot writes a record of its own.
        until(lambda: commands("autopilot", "off").status == 0, "the autopilot to be off", 60, 0.2)
        until(lambda: children(tmp_path) == [], "its process to end", 60, 0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_a_later_versions_fields_are_ignored(kafka: KafkaSettings) -> None:
    change_generations(kafka, next_records)
    later = b'{"on":true,"since":"2026-01-05T10:00:00Z","colour":"red"}'
    Sender(kafka).send(GENERATIONS, [(AUTOPILOT_KEY.decode(), later)])
    assert read_generations(kafka).autopilot == Autopilot(True, AT)
