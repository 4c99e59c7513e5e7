"""Which context processes run, by the versions that the log says are in use."""

from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from nearline import children
from nearline.settings.instance import ProcessInfo
from nearline.settings.settings import Settings
from nearline.up.stages import Stages, groups_in_use
from nearline.up.supervisor import Part, Supervisor
from schemas import topics
from schemas.generations import ContextsRecord
from schemas.ids import ContextVersion
from streams.contexts.rows_folder import rows_folder
from streams.generations.state import Generations
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings
from tests.kit.data.generations import AT, founded
from tests.kit.instances import NO_BROKER
from tests.kit.kafka.brokers import RunningBroker

SECOND = ContextVersion(2)


class Started:
    """In place of the supervisor: starts nothing, and ends at once what is told to end."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @property
    def processes(self) -> list[ProcessInfo]:
        return [ProcessInfo(name, None, 0) for name in self.names]

    def start(self, part: Part) -> None:
        self.names.append(part.name)

    def end(self, name: str, _: float) -> None:
        self.names.remove(name)

    def look(self) -> None:
        """Nothing ends by itself."""


class NeverStalled:
    def stalled_names(self, _: object) -> list[str]:
        return []


def made(folder: Path, servers: str = NO_BROKER) -> tuple[Stages, Started]:
    settings = Settings(data_dir=folder, kafka=KafkaSettings(bootstrap_servers=servers))
    started = Started()

    def launch() -> children.Child:
        raise AssertionError("nothing is launched")

    stages = Stages(settings, cast(Supervisor, started), lambda _: launch, ["contexts-0", "contexts-1"])
    stages._detector = cast(Any, NeverStalled())
    return stages, started


def rebuilt(state: str, *, is_prepared: bool = True) -> Generations:
    return founded().with_records([ContextsRecord(SECOND, cast(Any, state), AT, is_prepared=is_prepared)])


def test_each_version_in_use_has_processes_of_its_own(tmp_path: Path) -> None:
    stages, started = made(tmp_path)
    stages.look(stages.state)
    assert started.names == [], "the first version may be retired, as long as nobody has read the log"
    stages.look(Generations())
    assert started.names == ["contexts-0", "contexts-1"], "before anything was founded"
    stages.look(rebuilt("building", is_prepared=False))
    assert started.names == ["contexts-0", "contexts-1"], "its topics may be missing"
    stages.look(rebuilt("building"))
    assert started.names == ["contexts-0", "contexts-1", "contexts-v2-0", "contexts-v2-1"]
    assert groups_in_use(rebuilt("checked"))["contexts-v2"] == "contexts.2"
    reads_second = replace(founded().records[cast(Any, "a-1")], contexts=SECOND)
    first_retired = [reads_second, ContextsRecord(ContextVersion(1), "retired", AT)]
    stages.look(rebuilt("live").with_records(first_retired))
    assert started.names == ["contexts-v2-0", "contexts-v2-1"]
    stages.look(rebuilt("retired"))
    assert started.names == ["contexts-0", "contexts-1"]
    assert stages.started == {"contexts-0", "contexts-1", "contexts-v2-0", "contexts-v2-1"}


def test_rows_of_a_retired_version_are_removed_when_its_process_has_ended(tmp_path: Path) -> None:
    stages, started = made(tmp_path)
    first, second = rows_folder(tmp_path, "0"), rows_folder(tmp_path, "0", SECOND)
    for folder in (first, second):
        folder.mkdir(parents=True)
    stages._follower._current = rebuilt("retired")
    stages._remove_retired()
    assert second.exists(), "nobody has looked yet at what runs"
    started.names = ["contexts-v2-0"]
    stages._running = frozenset(started.names)
    stages._remove_retired()
    assert second.exists(), "its process has them open"
    stages.look(rebuilt("retired"))
    stages.look(rebuilt("retired"))
    stages._remove_retired()
    assert (first.exists(), second.exists()) == (True, False)


@pytest.mark.broker
def test_closing_segments_makes_no_topic_that_an_upgrade_has_not_made_yet(
    clean_topics: RunningBroker, tmp_path: Path
) -> None:
    stages, _ = made(tmp_path, clean_topics.bootstrap_servers)
    state = stages._follower._current = founded()
    there = [spec for spec in state.topics if spec.name != topics.FORMS]
    assert len(there) == len(state.topics) - 1
    ensure_topics(stages._settings.kafka, there)
    stages._close_segments()
    assert topics.FORMS not in clean_topics.admin.list_topics(timeout=20).topics
