"""`nearline rebuild contexts` on a real broker, with the context stages of both versions beside it: what it leads to,
what it refuses, and what is there after a kill between any two steps."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest
from confluent_kafka import Producer

from nearline.generations.retiring import remove_unread_contexts
from nearline.rebuild import check as check_module
from nearline.rebuild import rebuild
from schemas import topics
from schemas.generations import ContextsRecord, GenerationRecord, PackageSource
from schemas.ids import ContextVersion, Generation
from streams.contexts.role import Role
from streams.errors import ActRefused
from streams.generations import acts
from streams.generations.acts import By
from streams.generations.log import change_generations, read_generations
from streams.kafka.clients import producer_config
from streams.kafka.offsets import OffsetReader
from streams.kafka.partitions import partition_of
from streams.kafka.records import Place
from tests.kit.commands import CommandResult, Commands
from tests.kit.data.events import activity, ago, post_created
from tests.kit.data.generations import AT
from tests.kit.data.shuffled_events import ShuffledEvents, slices
from tests.kit.kafka.stages import ContextStageSetup
from tests.kit.kafka.topics import Sender, delete_before, read_topic
from tests.kit.running import in_thread

pytestmark = pytest.mark.broker

SECOND = ContextVersion(2)
NAMES = topics.context_names(SECOND)
BY = By("test", AT, "to see")


def run(contexts: ContextStageSetup, *words: str) -> CommandResult:
    return Commands(contexts.folder)("rebuild", "contexts", *words)


def record(contexts: ContextStageSetup, version: ContextVersion = SECOND) -> ContextsRecord:
    return read_generations(contexts.kafka).contexts[version]


@contextmanager
def second_stage(contexts: ContextStageSetup) -> Iterator[None]:
    """The stage of the second version, as its process puts it together."""
    goal = record(contexts).goal
    moved_before = {Place(topic, at): end for topic, ends in goal.items() for at, end in ends.items()}
    with in_thread(contexts.stage(role=Role(SECOND, moved_before, lambda: False)).run):
        yield


def build(contexts: ContextStageSetup, name: str = "b-2") -> GenerationRecord:
    """As `generations build` does, without a package."""
    package = acts.Package(Generation(name), PackageSource(folder="/models/b"), f"digest of {name}")
    return change_generations(contexts.kafka, lambda state: acts.build(state, package, {}, BY)).records[package.id]


def existing(contexts: ContextStageSetup, *versions: ContextVersion) -> set[str]:
    """Their topics that are there."""
    names = [spec.name for version in versions for spec in topics.context_topics(version)]
    with closing(OffsetReader(contexts.kafka, 30)) as reader:
        return {place.topic for place in reader.places(names)}


@pytest.mark.timeout(240)
def test_contexts_are_rebuilt_checked_taken_over_and_the_old_ones_removed(contexts: ContextStageSetup) -> None:
    contexts.sender = Sender(contexts.kafka, partitioner="consistent_random")
    events = ShuffledEvents(seed=5, num_actions=200)
    early, late = slices(events.sent(), 2)
    contexts.send_all(early)
    contexts.sender.send(topics.POSTS, [("p1", b"{")])
    with in_thread(contexts.stage().run):
        contexts.until_done()
        assert rebuild.begin(contexts.kafka, BY) == SECOND
        with second_stage(contexts):
            contexts.send_all(late)
            # The stages' threads write their log into the same output.
            done = run(contexts)
            assert done.status == 0, done.out + done.err
            assert "version 2 of the contexts is built beside the serving one\n" in done.out
            assert "60 posts compared" in done.out
            assert "the next generation takes version 2 over: nearline generations build PACKAGE\n" in done.out
            assert record(contexts).state == "checked"
            assert run(contexts).status == 0, "it compares again"
            assert len(read_topic(contexts.kafka, topics.DEAD_LETTERS)) == 1
    assert existing(contexts, topics.FIRST_CONTEXTS, SECOND) == {
        spec.name for version in (topics.FIRST_CONTEXTS, SECOND) for spec in topics.context_topics(version)
    }
    assert build(contexts).contexts == SECOND
    assert record(contexts).state == "live"
    change_generations(contexts.kafka, lambda state: acts.ready(state, Generation("b-2"), BY))
    change_generations(contexts.kafka, lambda state: acts.promote(state, Generation("b-2"), BY, force=True))
    remove_unread_contexts(contexts.kafka)
    assert NAMES.post_contexts in existing(contexts, SECOND)
    assert topics.POST_CONTEXTS in existing(contexts, topics.FIRST_CONTEXTS), "the kept generation reads it"
    change_generations(contexts.kafka, lambda state: acts.retire(state, Generation("a-1"), BY, force=True))
    for _ in range(2):
        remove_unread_contexts(contexts.kafka)
        assert existing(contexts, topics.FIRST_CONTEXTS) == set()
    assert record(contexts, topics.FIRST_CONTEXTS).state == "retired"
    with second_stage(contexts):
        contexts.until_done(version=SECOND)
    revisions = [message.key() for message in read_topic(contexts.kafka, NAMES.post_contexts)]
    assert len(set(revisions)) == 60


@pytest.mark.timeout(240)
def test_what_differs_is_named_and_not_taken_over_unless_by_force(
    contexts: ContextStageSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old rows have counted a like twice, hold a post that nobody has sent, and one that cannot be read."""
    monkeypatch.setattr(rebuild, "SETTLE_S", 0.0)
    contexts.send(*(post_created(name) for name in ("p1", "p2", "p3")), activity("m", "p1", "like", at=ago(hours=1)))
    with in_thread(contexts.stage().run):
        contexts.until_done()
        rebuild.begin(contexts.kafka, BY)
        with second_stage(contexts):
            contexts.until_done(version=SECOND)
    _overwrite_head(contexts, topics.POST_CHANGELOG, "p2", b"junk")
    _overwrite_head(contexts, NAMES.post_changelog, "p3", b"junk")
    _overwrite_head(contexts, topics.POST_CHANGELOG, "p1", None)
    done = run(contexts)
    assert done.status == 1
    assert "1: another newest event, such as p1" in done.out
    assert f"1: {check_module.NEW_IS_DAMAGED}, such as p3" in done.out
    assert f"1 {check_module.OLD_IS_DAMAGED}, such as p2; the new ones take their place" in done.out
    assert "else give it up: nearline rebuild contexts --drop\n" in done.out
    assert (record(contexts).state, build(contexts).contexts) == ("building", topics.FIRST_CONTEXTS)
    refused = run(contexts, "--force")
    assert (refused.status, "give --reason" in refused.err) == (1, True)
    assert run(contexts, "--force", "--reason", "the old ones are wrong").status == 0
    assert record(contexts).state == "checked"
    assert record(contexts).history[-1].reason == "the old ones are wrong"
    assert "version 2 is given up and deleted\n" in run(contexts, "--drop").out
    assert (record(contexts).state, existing(contexts, SECOND)) == ("retired", set())
    assert "no version is being rebuilt\n" in run(contexts, "--drop").out


@pytest.mark.timeout(240)
def test_a_kill_between_any_two_steps_leaves_what_the_same_command_goes_on_from(
    contexts: ContextStageSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is killed before it and after it, twice."""
    contexts.send(post_created("p1"))
    for step in ("_begins", "change_generations", "ensure_topics", "_set_begin", "change_generations"):
        for is_done in (False, True, False, True):
            # A step that an earlier call has done is not done again, and then nobody is killed.
            with monkeypatch.context() as patch, suppress(SystemExit):
                patch.setattr(rebuild, step, _killed(getattr(rebuild, step), is_done=is_done))
                rebuild.begin(contexts.kafka, BY)
    with in_thread(contexts.stage().run):
        assert rebuild.begin(contexts.kafka, By("another", AT)) == SECOND
        acts_of_second = [(act.what, act.who) for act in record(contexts).history]
        assert acts_of_second == [("rebuild", "test"), ("prepared", "test")], "two operators build the same version"
        with second_stage(contexts):
            assert run(contexts).status == 0
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(rebuild, "remove_unread_contexts", _killed(remove_unread_contexts, is_done=False))
            with pytest.raises(SystemExit):
                rebuild.drop(contexts.kafka, BY)
    assert existing(contexts, SECOND)
    assert rebuild.begin(contexts.kafka, BY) == 3, "no number is used twice"
    assert existing(contexts, SECOND) == set(), "what was left is removed"


def test_who_is_given_up_meanwhile_makes_nothing_that_stays(
    contexts: ContextStageSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another operator drops the version while this one prepares it."""
    make_topics = rebuild.ensure_topics

    def dropped_first(*arguments: Any) -> None:
        rebuild.drop(contexts.kafka, By("another", AT))
        make_topics(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(rebuild, "ensure_topics", dropped_first)
        with pytest.raises(ActRefused, match="is not being rebuilt any more"):
            rebuild.begin(contexts.kafka, BY)
    assert read_generations(contexts.kafka).context_versions == [topics.FIRST_CONTEXTS]
    assert "no version is being rebuilt\n" in run(contexts, "--drop").out
    assert existing(contexts, SECOND) == set()


def test_topics_that_no_longer_reach_back_are_refused(contexts: ContextStageSetup) -> None:
    contexts.send(*(post_created(f"p{n}") for n in range(8)))
    partition = partition_of(b"p1", contexts.kafka.partitions)
    delete_before(contexts.broker, topics.POSTS, partition, 1)
    refused = run(contexts)
    assert (refused.status, refused.out) == (1, "")
    assert refused.err == (
        f"nearline: the topics no longer reach back to the first event (1 of posts-{partition} deleted by retention), "
        "so contexts made of them would be short of these; rebuild them from all that was exported: nearline rebuild "
        "contexts --from FILES\n"
    )
    assert (read_generations(contexts.kafka).contexts, existing(contexts, SECOND)) == ({}, set())


def test_events_that_retention_deletes_before_they_are_read_are_found(
    contexts: ContextStageSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "SETTLE_S", 0.0)
    contexts.send(*(post_created(f"p{n}") for n in range(8)))
    with in_thread(contexts.stage().run):
        contexts.until_done()
        rebuild.begin(contexts.kafka, BY)
        partition = partition_of(b"p1", contexts.kafka.partitions)
        delete_before(contexts.broker, topics.POSTS, partition, 1)
        with second_stage(contexts):
            done = run(contexts)
    assert done.status == 1
    assert f"1 of posts-{partition}; rebuild from exported files: --drop, and then --from FILES" in done.out


def test_nothing_is_rebuilt_before_anything_serves(contexts: ContextStageSetup) -> None:
    contexts.broker.delete_topics(topics.GENERATIONS)
    assert "so there are no contexts to rebuild; start with: nearline up" in run(contexts).err


def _killed(step: Callable[..., object], *, is_done: bool) -> Callable[..., object]:
    def killed(*arguments: object, **options: object) -> object:
        if is_done:
            step(*arguments, **options)
        raise SystemExit

    return killed


def _overwrite_head(contexts: ContextStageSetup, changelog: str, post_id: str, value: bytes | None) -> None:
    """The head of a post's row, as contexts/cells.py stores it."""
    producer = Producer(producer_config(contexts.kafka))
    partition = partition_of(post_id.encode(), contexts.kafka.partitions)
    producer.produce(changelog, value, b"s" + post_id.encode(), partition=partition)
    assert producer.flush(20) == 0
