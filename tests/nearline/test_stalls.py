"""Which processes are taken for standing still, on the real broker. A whole pipeline with a frozen process is in
tests/chaos."""

import os
import signal
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nearline.instance import ProcessInfo
from nearline.stalls import Stalls
from schemas import topics
from streams.commit_watch import CommitWatch
from streams.pulse import Pulse
from streams.records import Place
from streams.settings import KafkaSettings
from streams.topics import ensure_topics
from tests.conftest import RunningBroker
from tests.streams.stage_kit import Sender, new_generation
from tests.waiting import until

ME = os.getpid()
PROCESSES = [ProcessInfo(name, ME, 0) for name in ("broker", "contexts-0", "contexts-1", "encode-0", "cold", "serve")]


@contextmanager
def stalls(broker: RunningBroker, folder: Path) -> Iterator[Stalls]:
    """Looks every tenth of a second."""
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    generation = new_generation()
    ensure_topics(kafka, (*topics.core_topics(), *topics.generation_topics(generation)))
    watching = Stalls(kafka, generation, folder, 0.6)
    watching.start()
    yield watching
    watching.close()


@pytest.mark.broker
def test_who_has_something_to_do_and_gives_no_sign_stands_still(clean_topics: RunningBroker, tmp_path: Path) -> None:
    still, at_work, waiting = (Pulse(tmp_path, name) for name in ("contexts-0", "contexts-1", "encode-0"))
    with stalls(clean_topics, tmp_path) as watching:
        for pulse in (still, at_work, waiting):
            pulse.start()
        Sender(KafkaSettings(bootstrap_servers=clean_topics.bootstrap_servers)).send(topics.POSTS, [("p", b"{}")])
        found: set[str] = set()

        def look() -> bool:
            at_work.beat()
            found.update(watching.found(PROCESSES))
            return bool(found)

        until(look, "the stage without commits to be seen")
    assert found == {"contexts-0"}, "not who is at work, nor who has nothing to read"


@pytest.mark.broker
def test_a_look_that_fails_is_not_the_last_one(
    clean_topics: RunningBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = CommitWatch.stalled
    failures = iter([RuntimeError("not one of ours")])

    def fails_once(watch: CommitWatch, places: Collection[Place]) -> list[Place]:
        for failure in failures:
            raise failure
        return looked(watch, places)

    monkeypatch.setattr(CommitWatch, "stalled", fails_once)
    with stalls(clean_topics, tmp_path) as watching:
        Pulse(tmp_path, "contexts-0").start()
        Sender(KafkaSettings(bootstrap_servers=clean_topics.bootstrap_servers)).send(topics.POSTS, [("p", b"{}")])
        found: list[str] = []
        until(lambda: bool(found.extend(watching.found(PROCESSES)) or found), "the stage without commits to be seen")
    assert found == ["contexts-0"]


@pytest.mark.broker
def test_who_starts_is_given_time(clean_topics: RunningBroker, tmp_path: Path) -> None:
    """Its loop has not begun: what the file says is of the process before."""
    Pulse(tmp_path, "contexts-0").start()
    starts, begun = ProcessInfo("contexts-0", ME + 1, 1), ProcessInfo("contexts-1", ME, 0)
    with stalls(clean_topics, tmp_path) as watching:
        Pulse(tmp_path, "contexts-1").start()
        Sender(KafkaSettings(bootstrap_servers=clean_topics.bootstrap_servers)).send(topics.POSTS, [("p", b"{}")])
        found: list[str] = []
        until(lambda: bool(found.extend(watching.found([starts, begun])) or found), "the other one to be seen")
    assert found == ["contexts-1"]


@pytest.mark.broker
def test_who_was_stopped_by_a_signal_stands_still_even_with_nothing_to_read(
    clean_topics: RunningBroker, tmp_path: Path
) -> None:
    sleeper = subprocess.Popen(["sleep", "600"])
    processes = [ProcessInfo("serve", sleeper.pid, 0), ProcessInfo("cold", ME, 0)]
    try:
        with stalls(clean_topics, tmp_path) as watching:
            sleeper.send_signal(signal.SIGSTOP)
            found: list[str] = []
            until(lambda: bool(found.extend(watching.found(processes)) or found), "the stopped one to be seen")
    finally:
        sleeper.kill()
        sleeper.wait()
    assert found == ["serve"]
