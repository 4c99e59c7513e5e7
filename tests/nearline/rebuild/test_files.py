"""`nearline rebuild contexts --from FILES`: exported events, and then the topics, make the same contexts as all events
in the topics did; each event once, whatever is killed meanwhile."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from nearline.rebuild import files as files_module
from nearline.rebuild import rebuild
from nearline.rebuild.files import coverage, load
from schemas import topics
from schemas.ids import ContextVersion, Millis, Offset, Partition
from streams.contexts.role import Role
from streams.errors import BadFile
from streams.generations.acts import By
from streams.generations.log import read_generations
from streams.kafka.command_transactions import CommandTransactions
from streams.kafka.offsets import Offsets
from streams.kafka.records import Place
from streams.operate.export import Stretch, export, records_of, stretches
from tests.kit.commands import CommandResult, Commands
from tests.kit.data.generations import AT
from tests.kit.data.shuffled_events import ShuffledEvents, slices
from tests.kit.kafka.stages import ContextStageSetup
from tests.kit.kafka.topics import delete_before, read_topic
from tests.kit.running import in_thread

SECOND = ContextVersion(2)
BY = By("test", AT, "to see")
POSTS_0, POSTS_1 = Place(topics.POSTS, Partition(0)), Place(topics.POSTS, Partition(1))


def run(contexts: ContextStageSetup, *words: str | Path) -> CommandResult:
    return Commands(contexts.folder)("rebuild", "contexts", *words)


@contextmanager
def second_stage(contexts: ContextStageSetup) -> Iterator[None]:
    with in_thread(contexts.stage(role=Role(SECOND, {}, lambda: False)).run):
        yield


def exported(contexts: ContextStageSetup, folder: Path) -> dict[Stretch, list[Any]]:
    assert sum(export(contexts.kafka, folder, Millis(0))) > 0
    return {stretch: list(records_of(folder, stretch)) for stretch in stretches(folder)}


@pytest.mark.broker
@pytest.mark.timeout(300)
def test_contexts_come_from_files_where_the_topics_no_longer_reach_back(
    contexts: ContextStageSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "_BATCH_RECORDS", 40)
    events = ShuffledEvents(seed=8, num_actions=200)
    early, late = slices(events.sent(), 2)
    contexts.send_all(early)
    folder = tmp_path / "recorded"
    recorded = exported(contexts, folder)
    with in_thread(contexts.stage().run):
        contexts.until_done()
        for place, end in ((stretch.place, stretch.next) for stretch in recorded):
            if place.topic != topics.MEMBERS:
                delete_before(contexts.broker, place.topic, place.partition, end)
        refused = run(contexts)
        assert (refused.status, "nearline rebuild contexts --from FILES" in refused.err) == (1, True)
        contexts.send_all(late)
        # Killed before and after a transaction, so that some events are loaded and others are not.
        for is_done in (False, True, False, True):
            with monkeypatch.context() as patch, suppress(SystemExit):
                patch.setattr(CommandTransactions, "commit", _killed(CommandTransactions.commit, is_done=is_done))
                rebuild.begin(contexts.kafka, BY, folder)
        assert not read_generations(contexts.kafka).contexts[SECOND].is_prepared
        assert rebuild.begin(contexts.kafka, BY) == SECOND, "without the folder's name it goes on with the same"
        for stretch, records in recorded.items():
            copies = read_topic(contexts.kafka, topics.recorded_inputs(SECOND)[stretch.place.topic])
            there = [
                (message.timestamp()[1], message.key(), message.value())
                for message in copies
                if message.partition() == stretch.place.partition
            ]
            assert there == [(record.timestamp_ms, record.key, record.value) for record in records], stretch
        with second_stage(contexts):
            done = run(contexts, "--from", folder)
    assert done.status == 0, done.out + done.err
    assert "60 posts compared" in done.out
    assert read_generations(contexts.kafka).contexts[SECOND].state == "checked"
    for name in topics.recorded_inputs(SECOND).values():
        assert read_topic(contexts.kafka, name) == [], "they would outlive the retention of the inputs"
    other = run(contexts, "--from", tmp_path)
    assert f"is being rebuilt from the files in {folder} already" in other.err


@pytest.mark.broker
def test_files_that_lack_events_are_refused_unless_by_force(contexts: ContextStageSetup, tmp_path: Path) -> None:
    events = ShuffledEvents(seed=8, num_posts=20, num_actions=0)
    contexts.send_all(events.sent())
    folder = tmp_path / "recorded"
    empty = run(contexts, "--from", tmp_path)
    assert f"{tmp_path} holds no exported events" in empty.err
    lost = next(stretch for stretch in exported(contexts, folder) if stretch.place.topic == topics.POSTS)
    delete_before(contexts.broker, topics.POSTS, lost.place.partition, lost.next)
    (folder / lost.file_name).unlink()
    refused = run(contexts, "--from", folder)
    gap = f"posts-{lost.place.partition} from 0 to {lost.next - 1}"
    assert f"the files in {folder} and the topics together lack events ({gap})" in refused.err
    assert read_generations(contexts.kafka).contexts == {}
    assert "give --reason" in run(contexts, "--from", folder, "--force").err
    assert rebuild.begin(contexts.kafka, BY, folder, force=True) == SECOND
    begins = read_generations(contexts.kafka).contexts[SECOND].begins
    assert begins[topics.POSTS][lost.place.partition] == lost.next


@pytest.mark.broker
def test_of_two_loaders_one_is_fenced_and_each_event_is_there_once(
    contexts: ContextStageSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "_BATCH_RECORDS", 10)
    contexts.send_all(ShuffledEvents(seed=8, num_posts=20, num_actions=50).sent())
    folder = tmp_path / "recorded"
    recorded = exported(contexts, folder)
    with monkeypatch.context() as patch, suppress(SystemExit):
        patch.setattr(rebuild, "load", _killed(load, is_done=False))
        rebuild.begin(contexts.kafka, BY, folder)
    commit, seconds = CommandTransactions.commit, Counter[str]()

    def overtaken(*arguments: Any) -> None:
        """The second loader comes and finishes while the first one has committed one transaction."""
        commit(*arguments)
        seconds["calls"] += 1
        if seconds["calls"] == 1:
            rebuild.begin(contexts.kafka, By("another", AT), folder)

    with monkeypatch.context() as patch:
        patch.setattr(CommandTransactions, "commit", overtaken)
        fenced = run(contexts, "--from", folder)
    assert "another operator loads events at the same time" in fenced.err
    loaded = sum(len(read_topic(contexts.kafka, name)) for name in topics.recorded_inputs(SECOND).values())
    assert loaded == sum(map(len, recorded.values()))


def _stretches(folder: Path, *found: tuple[Place, int, int]) -> Path:
    for place, first, end in found:
        (folder / Stretch(place, Offset(first), Offset(end)).file_name).touch()
    return folder


def _offsets(first: int, second: int) -> Offsets:
    return {POSTS_0: Offset(first), POSTS_1: Offset(second)}


def test_where_the_files_end_the_topics_go_on(tmp_path: Path) -> None:
    folder = _stretches(tmp_path, (POSTS_0, 0, 10), (POSTS_0, 10, 25))
    assert coverage(folder, _offsets(20, 0), _offsets(40, 3)) == (_offsets(25, 0), [])
    covered = coverage(folder, _offsets(28, 0), _offsets(40, 3))
    assert (covered.reaches, list(map(str, covered.gaps))) == (_offsets(28, 0), ["posts-0 from 25 to 27"])


def test_every_gap_is_found(tmp_path: Path) -> None:
    folder = _stretches(tmp_path, (POSTS_0, 5, 10), (POSTS_0, 12, 25))
    covered = coverage(folder, _offsets(20, 2), _offsets(40, 3))
    assert list(map(str, covered.gaps)) == ["posts-0 from 0 to 4", "posts-0 from 10 to 11", "posts-1 from 0 to 1"]


def test_files_of_another_broker_are_refused(tmp_path: Path) -> None:
    folder = _stretches(tmp_path, (POSTS_0, 0, 50))
    with pytest.raises(BadFile, match="and the topic ends at 40; take files that were exported from this broker"):
        coverage(folder, _offsets(0, 0), _offsets(40, 3))
    folder = _stretches(tmp_path, (Place(topics.POSTS, Partition(7)), 0, 5))
    with pytest.raises(BadFile, match="posts-7, which is not on this broker"):
        coverage(folder, _offsets(0, 0), _offsets(60, 3))


def _killed(step: Callable[..., Any], *, is_done: bool) -> Callable[..., Any]:
    def killed(*arguments: Any) -> None:
        if is_done:
            step(*arguments)
        raise SystemExit

    return killed
