"""Which processes are taken for standing still: by what they say and own, then on the real broker. A whole pipeline
with a frozen process is in tests/chaos."""

import os
import signal
import subprocess
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from nearline.settings.instance import ProcessInfo
from nearline.up.stall_detector import StallDetector
from schemas import topics
from schemas.ids import Generation, Offset, Partition
from streams.errors import KafkaUnavailable
from streams.kafka.commit_watch import CommitWatch
from streams.kafka.heartbeat import HeartbeatFile
from streams.kafka.offsets import Offsets
from streams.kafka.records import Place
from streams.settings import KafkaSettings
from tests.kit.data.embeddings import GENERATION
from tests.kit.instances import NO_BROKER
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.topics import make_topics, produce
from tests.kit.waiting import until

ME = os.getpid()
PROCESSES = [
    ProcessInfo(name, ME, 0) for name in ("broker", "contexts-0", "contexts-1", "encode-blue-0", "cold-blue", "serve")
]
POSTS = [Place(topics.POSTS, Partition(number)) for number in range(2)]
CONTEXTS = [Place(topics.POST_CONTEXTS, Partition(number)) for number in range(2)]
GROUPS = {
    "contexts": topics.CONTEXTS_GROUP,
    "encode-blue": topics.encode_group(GENERATION),
    "cold-blue": topics.index_group(GENERATION),
}
AFTER_S = 1e-6
LOOKS = 7
"""One more than what has to be the same."""
OUT_OF_GROUP_LOOKS = 20


class Broker:
    """In the place of what the broker says: which partitions have something to read, and from where on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.backlog: Offsets = {}
        self.failures: list[Exception] = []
        monkeypatch.setattr(CommitWatch, "waiting", self._waiting)

    def _waiting(self, places: Collection[Place]) -> Offsets:
        if self.failures:
            raise self.failures.pop()
        return {place: offset for place, offset in self.backlog.items() if place in places}


class Watching:
    """Looks when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.groups = GROUPS
        kafka = KafkaSettings(bootstrap_servers=NO_BROKER)
        self._detector = StallDetector(
            kafka, lambda: self.groups, folder, AFTER_S, out_of_group_s=OUT_OF_GROUP_LOOKS * AFTER_S / 6
        )

    def after(
        self, looks: int, meanwhile: Callable[[], object] = int, processes: Sequence[ProcessInfo] = PROCESSES
    ) -> set[str]:
        """Who stands still then. `meanwhile` is done before each look."""
        for _ in range(looks):
            meanwhile()
            self._detector.stalled_names(processes)
            self._detector.look()
        return set(self._detector.stalled_names(processes))


def begun(folder: Path, process: str, *owned: Place, loop: str = "loop") -> HeartbeatFile:
    heartbeat = HeartbeatFile(folder, process, loop)
    heartbeat.start()
    heartbeat.owns(owned)
    return heartbeat


@pytest.fixture
def broker_says(monkeypatch: pytest.MonkeyPatch) -> Broker:
    return Broker(monkeypatch)


@pytest.fixture
def watching(tmp_path: Path) -> Watching:
    return Watching(tmp_path)


def test_who_has_nothing_to_do_is_not_blamed_for_what_others_have_not_done(
    broker_says: Broker, watching: Watching, tmp_path: Path
) -> None:
    """Another machine's backlog, and a slow worker beside it."""
    broker_says.backlog = dict.fromkeys((*POSTS, *CONTEXTS), Offset(0))
    begun(tmp_path, "contexts-0")
    slow = begun(tmp_path, "contexts-1", POSTS[0])
    begun(tmp_path, "encode-blue-0", loop="post")
    assert watching.after(2 * LOOKS, slow.still_working) == set()


def test_who_commits_is_not_blamed_though_it_never_reaches_the_end(
    broker_says: Broker, watching: Watching, tmp_path: Path
) -> None:
    begun(tmp_path, "contexts-0", *POSTS)

    def commits() -> None:
        broker_says.backlog = {place: Offset(broker_says.backlog.get(place, 0) + 1) for place in POSTS}

    assert watching.after(2 * LOOKS, commits) == set()


def test_a_backlog_that_has_come_over_is_not_held_against_its_new_owner(
    broker_says: Broker, watching: Watching, tmp_path: Path
) -> None:
    """It stood still with another owner; whoever takes it over is given the whole time."""
    broker_says.backlog = dict.fromkeys(POSTS, Offset(0))
    begun(tmp_path, "contexts-0", POSTS[0])
    takes_over = begun(tmp_path, "contexts-1")
    assert watching.after(LOOKS) == {"contexts-0"}
    takes_over.owns(POSTS)
    assert watching.after(LOOKS - 1) == {"contexts-0"}
    assert watching.after(1) == {"contexts-0", "contexts-1"}


def test_one_loop_of_several_that_stands_still_is_enough(
    broker_says: Broker, watching: Watching, tmp_path: Path
) -> None:
    broker_says.backlog = dict.fromkeys(CONTEXTS, Offset(0))
    at_work = begun(tmp_path, "encode-blue-0", CONTEXTS[0], loop="post")
    begun(tmp_path, "encode-blue-0", CONTEXTS[1], loop="post-2")
    assert watching.after(LOOKS, at_work.still_working) == {"encode-blue-0"}


def test_who_owns_nothing_and_does_not_come_round_is_seen_too(
    broker_says: Broker, watching: Watching, tmp_path: Path
) -> None:
    """It hangs before it has partitions, or its group has put it out: then nobody may own them."""
    broker_says.backlog = dict.fromkeys(POSTS, Offset(0))
    begun(tmp_path, "contexts-0")
    idle, at_work = begun(tmp_path, "contexts-1"), begun(tmp_path, "encode-blue-0")

    def others() -> None:
        idle.loop_turned()
        at_work.still_working()

    assert watching.after(OUT_OF_GROUP_LOOKS, others) == set()
    assert watching.after(1, others) == {"contexts-0"}


def test_who_starts_is_given_time(broker_says: Broker, watching: Watching, tmp_path: Path) -> None:
    """Its loop has not begun: what the file says is of the process before."""
    broker_says.backlog = dict.fromkeys(POSTS, Offset(0))
    begun(tmp_path, "contexts-0", POSTS[0])
    begun(tmp_path, "contexts-1", POSTS[1])
    processes = [ProcessInfo("contexts-0", ME + 1, 1), ProcessInfo("contexts-1", ME, 0)]
    assert watching.after(LOOKS, processes=processes) == {"contexts-1"}


def test_an_outage_is_nobodys_fault(broker_says: Broker, watching: Watching, tmp_path: Path) -> None:
    broker_says.backlog = dict.fromkeys(POSTS, Offset(0))
    begun(tmp_path, "contexts-0", POSTS[0])
    assert watching.after(LOOKS - 1) == set()
    broker_says.failures.append(KafkaUnavailable("nobody answers"))
    assert watching.after(LOOKS) == set(), "counting begins anew"
    assert watching.after(1) == {"contexts-0"}


@pytest.mark.broker
def test_the_thread_goes_on_after_a_look_that_failed(
    clean_topics: RunningBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = CommitWatch.waiting
    failures = iter([RuntimeError("not one of ours")])

    def fails_once(watch: CommitWatch, places: Collection[Place]) -> Offsets:
        for failure in failures:
            raise failure
        return ask(watch, places)

    monkeypatch.setattr(CommitWatch, "waiting", fails_once)
    detector = StallDetector(make_topics(clean_topics), lambda: GROUPS, tmp_path, 0.6)
    begun(tmp_path, "contexts-0", POSTS[0])
    begun(tmp_path, "contexts-1")
    produce(make_topics(clean_topics), *POSTS[0])
    stalls: list[str] = []
    with closing(detector):
        detector.start()
        until(
            lambda: bool(stalls.extend(detector.stalled_names(PROCESSES)) or stalls),
            "the one with a backlog to be seen",
        )
    assert stalls == ["contexts-0"]


def test_a_place_is_watched_while_a_generation_lives_there(
    broker_says: Broker, watching: Watching, tmp_path: Path
) -> None:
    begun(tmp_path, "encode-blue-0", CONTEXTS[0], loop="post")
    begun(tmp_path, "encode-green-0", CONTEXTS[1], loop="post")
    processes = [ProcessInfo(name, ME, 0) for name in ("encode-blue-0", "encode-green-0")]
    broker_says.backlog = {place: Offset(3) for place in CONTEXTS}
    assert watching.after(LOOKS, processes=processes) == {"encode-blue-0"}
    watching.groups = {"encode-green": topics.encode_group(Generation("another-1"))}
    assert watching.after(LOOKS, processes=processes) == {"encode-green-0"}


def test_who_was_stopped_by_a_signal_stands_still_even_with_nothing_to_read(watching: Watching) -> None:
    sleeper = subprocess.Popen(["sleep", "600"])
    processes = [ProcessInfo("serve", sleeper.pid, 0), ProcessInfo("cold-blue", ME, 0)]
    try:
        sleeper.send_signal(signal.SIGSTOP)
        until(lambda: watching.after(1, processes=processes) == {"serve"}, "the stopped one to be seen")
    finally:
        sleeper.kill()
        sleeper.wait()
