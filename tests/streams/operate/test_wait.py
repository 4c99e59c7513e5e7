"""`wait` ends when everything is searchable, and not before. It follows the stages in order, and through an outage."""

import threading
from collections.abc import Callable
from functools import partial

import pytest

from schemas import stages, topics
from schemas.generations import ContextsRecord, Pointer
from schemas.ids import ContextVersion, Generation, Offset, Partition
from schemas.topics import ReplayedStage
from streams.errors import StillBehind, StreamsError
from streams.generations.log import change_generations
from streams.generations.removal import delete_topics
from streams.kafka.offsets import OffsetReader
from streams.kafka.topics import ensure_topics
from streams.operate.wait import Progress, Wait
from streams.settings import KafkaSettings
from tests.kit.data.embeddings import GENERATION
from tests.kit.data.generations import AT, generation_record
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.groups import commit_all
from tests.kit.kafka.topics import make_topics, produce
from tests.kit.waiting import until

pytestmark = pytest.mark.broker

POSTS_OUT, MEMBERS_OUT = topics.post_embeddings(GENERATION), topics.member_embeddings(GENERATION)


class Waiting:
    """A wait in a thread. `looks` is everything it reported; `hot` is what the hot feed answers. With `stage` it waits
    for what this stage was asked to process again."""

    def __init__(self, kafka: KafkaSettings, timeout_s: float = 60.0, stage: ReplayedStage | None = None) -> None:
        self.looks: list[Progress] = []
        self.hot: dict[Partition, Offset] | None = {}
        self.error: StreamsError | None = None
        wait = Wait(kafka, GENERATION, lambda: self.hot, self.looks.append, timeout_s=timeout_s)
        run = wait.run if stage is None else partial(wait.run_from, stage)
        self._thread = threading.Thread(target=self._run, args=(run,))
        self._thread.start()

    def _run(self, run: Callable[[], None]) -> None:
        try:
            run()
        except StreamsError as error:
            self.error = error

    @property
    def at(self) -> tuple[str, str, int | None] | None:
        behind = [look for look in self.looks[-4:] if look.records != 0]
        return tuple(behind[-1]) if behind else None

    def until_at(self, stage: str, topic: str, records: int | None = 1) -> None:
        until(lambda: self.at == (stage, topic, records), f"the wait to stand at {stage} {topic}, not {self.at}")

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive(), f"the wait still stands at {self.at}"


def flushed(kafka: KafkaSettings) -> bool:
    reader = OffsetReader(kafka)
    return set(reader.ends(reader.places([topics.REPUBLISH])).values()) == {1}


def test_every_stage_is_waited_for_in_its_order(clean_topics: RunningBroker, kafka: KafkaSettings) -> None:
    contexts, encode, index = topics.CONTEXTS_GROUP, topics.encode_group(GENERATION), topics.index_group(GENERATION)
    produce(kafka, topics.POSTS, 0)
    wait = Waiting(kafka)
    wait.until_at("contexts", topics.POSTS)
    # The output of a stage appears before its input is committed, as in the real stages.
    for done, group, made_by_it in (
        (topics.INPUTS, contexts, topics.ACTIVITY_BY_POST),
        ((topics.ACTIVITY_BY_POST,), contexts, topics.ACTIONS_BY_MEMBER),
    ):
        produce(kafka, made_by_it, 1)
        commit_all(clean_topics, kafka, group, *done)
        wait.until_at("contexts", made_by_it)
        assert not flushed(kafka)
    commit_all(clean_topics, kafka, contexts, topics.ACTIONS_BY_MEMBER)
    wait.until_at("contexts", topics.REPUBLISH, 2)
    assert flushed(kafka)
    produce(kafka, topics.POST_CONTEXTS, 0)
    commit_all(clean_topics, kafka, contexts, topics.REPUBLISH)
    wait.until_at("encode", topics.POST_CONTEXTS)
    produce(kafka, POSTS_OUT, 0)
    commit_all(clean_topics, kafka, encode, topics.POST_CONTEXTS, topics.MEMBER_CONTEXTS)
    wait.until_at("index", POSTS_OUT)
    wait.hot = None
    commit_all(clean_topics, kafka, index, POSTS_OUT, MEMBERS_OUT)
    wait.until_at("hot-feed", POSTS_OUT, None)
    wait.hot = {Partition(0): Offset(0), Partition(1): Offset(0)}
    wait.until_at("hot-feed", POSTS_OUT)
    wait.hot = {Partition(0): Offset(1), Partition(1): Offset(0)}
    wait.join()
    assert wait.error is None


@pytest.fixture
def beside(kafka: KafkaSettings) -> Generation:
    """A generation that is being built beside the serving one, and has one post to encode."""
    other = Generation("other-1")
    ensure_topics(kafka, topics.generation_topics(other))
    serving = generation_record(GENERATION)
    records = [serving, generation_record(other, "building", "green"), Pointer(serving.id)]
    change_generations(kafka, lambda _: records)
    produce(kafka, topics.POST_CONTEXTS, 0)
    return other


def only_it_is_behind(broker: RunningBroker, kafka: KafkaSettings) -> None:
    for read in stages.all_stages(GENERATION):
        if read.group:
            commit_all(broker, kafka, read.group, *read.topics)


def test_the_generations_beside_the_serving_one_are_waited_for(
    clean_topics: RunningBroker, kafka: KafkaSettings, beside: Generation
) -> None:
    wait = Waiting(kafka)
    wait.until_at("contexts", topics.REPUBLISH, 2)
    only_it_is_behind(clean_topics, kafka)
    wait.until_at(f"encode of {beside}", topics.POST_CONTEXTS)
    produce(kafka, topics.post_embeddings(beside), 0)
    commit_all(clean_topics, kafka, topics.encode_group(beside), topics.POST_CONTEXTS, topics.MEMBER_CONTEXTS)
    wait.until_at(f"index of {beside}", topics.post_embeddings(beside))
    commit_all(clean_topics, kafka, topics.index_group(beside), *stages.index_reads(beside).topics)
    wait.join()
    assert wait.error is None


def test_contexts_that_only_another_generation_reads_come_before_its_encoding(
    clean_topics: RunningBroker, kafka: KafkaSettings, beside: Generation
) -> None:
    second = ContextVersion(2)
    names = topics.context_names(second)
    ensure_topics(kafka, topics.context_topics(second))
    reads_second = generation_record(beside, "building", "green", contexts=second)
    change_generations(kafka, lambda _: [reads_second, ContextsRecord(second, "live", AT, is_prepared=True)])
    produce(kafka, names.activity_by_post, 0)
    wait = Waiting(kafka)
    wait.until_at("contexts", topics.REPUBLISH, 2)
    only_it_is_behind(clean_topics, kafka)
    wait.until_at("contexts", names.activity_by_post)
    produce(kafka, names.post_contexts, 0)
    inputs_and_hops = [name for name in stages.contexts_reads(second).topics if name != topics.REPUBLISH]
    commit_all(clean_topics, kafka, names.group, *inputs_and_hops)
    wait.until_at("contexts", topics.REPUBLISH, 4)
    commit_all(clean_topics, kafka, names.group, topics.REPUBLISH)
    wait.until_at(f"encode of {beside}", names.post_contexts)
    commit_all(clean_topics, kafka, topics.encode_group(beside), *names.contexts)
    wait.join()
    assert wait.error is None


def test_nobody_waits_for_a_generation_that_is_retired(
    clean_topics: RunningBroker, kafka: KafkaSettings, beside: Generation
) -> None:
    produce(kafka, topics.post_embeddings(beside), 0)
    commit_all(clean_topics, kafka, topics.encode_group(beside), topics.POST_CONTEXTS, topics.MEMBER_CONTEXTS)
    wait = Waiting(kafka)
    wait.until_at("contexts", topics.REPUBLISH, 2)
    only_it_is_behind(clean_topics, kafka)
    wait.until_at(f"index of {beside}", topics.post_embeddings(beside))
    change_generations(kafka, lambda _: [generation_record(beside, "retired", None)])
    delete_topics(kafka, beside)
    wait.join()
    assert wait.error is None


def test_a_wait_for_what_is_retired_meanwhile_ends_with_a_sentence(
    clean_topics: RunningBroker, kafka: KafkaSettings, beside: Generation
) -> None:
    """Another one serves since then. Its offsets are never compared with those of the one that was waited for."""
    only_it_is_behind(clean_topics, kafka)
    produce(kafka, POSTS_OUT, 0)
    wait = Waiting(kafka, stage="index")
    wait.until_at("index", POSTS_OUT)
    promoted = generation_record(beside, "serving", "green")
    retired = [generation_record(GENERATION, "retired", None), promoted, Pointer(beside)]
    change_generations(kafka, lambda _: retired)
    delete_topics(kafka, GENERATION)
    wait.join()
    assert isinstance(wait.error, StillBehind)
    assert f"the generation {GENERATION}, which served at the beginning, was retired meanwhile" in str(wait.error)


def test_what_is_asked_for_again_is_waited_for(clean_topics: RunningBroker, kafka: KafkaSettings) -> None:
    encode, index = topics.encode_group(GENERATION), topics.index_group(GENERATION)
    members = topics.replay_requests("encode", "member", GENERATION)
    produce(kafka, topics.POSTS, 0)
    produce(kafka, members, 1, 3)
    wait = Waiting(kafka, stage="encode")
    wait.until_at("encode", members, 3)
    produce(kafka, POSTS_OUT, 0)
    commit_all(clean_topics, kafka, encode, members)
    wait.until_at("index", POSTS_OUT)
    commit_all(clean_topics, kafka, index, POSTS_OUT)
    wait.until_at("hot-feed", POSTS_OUT)
    wait.hot = {Partition(0): Offset(1), Partition(1): Offset(0)}
    wait.join()
    assert wait.error is None
    assert not flushed(kafka), "new events are none of its business"


def test_what_is_indexed_again_needs_no_hot_feed(clean_topics: RunningBroker, kafka: KafkaSettings) -> None:
    posts = topics.replay_requests("index", "post", GENERATION)
    produce(kafka, topics.POST_CONTEXTS, 0)
    produce(kafka, posts, 1, 3)
    wait = Waiting(kafka, stage="index")
    wait.hot = None
    wait.until_at("index", posts, 3)
    commit_all(clean_topics, kafka, topics.index_group(GENERATION), posts)
    wait.join()
    assert wait.error is None


def test_records_that_are_sent_after_the_start_are_not_waited_for(
    clean_topics: RunningBroker, kafka: KafkaSettings
) -> None:
    produce(kafka, topics.POSTS, 0)
    wait = Waiting(kafka)
    wait.until_at("contexts", topics.POSTS)
    commit_all(clean_topics, kafka, topics.CONTEXTS_GROUP, topics.POSTS)
    produce(kafka, topics.POSTS, 0)
    wait.until_at("contexts", topics.REPUBLISH, 2)
    commit_all(clean_topics, kafka, topics.CONTEXTS_GROUP, topics.REPUBLISH)
    wait.join()
    assert wait.error is None


def test_a_time_out_says_what_is_behind(kafka: KafkaSettings) -> None:
    produce(kafka, topics.MEMBERS, 1, 3)
    wait = Waiting(kafka, timeout_s=1.0)
    wait.join()
    assert isinstance(wait.error, StillBehind)
    assert str(wait.error) == "not everything is searchable after 1 s; contexts still has to read 3 records of members"


def test_missing_topics_are_named(clean_topics: RunningBroker) -> None:
    wait = Waiting(KafkaSettings(bootstrap_servers=clean_topics.bootstrap_servers), timeout_s=0.5)
    wait.join()
    assert "the topic activity does not exist" in str(wait.error)


def test_an_outage_is_waited_out(fresh_broker: RunningBroker) -> None:
    kafka = make_topics(fresh_broker)
    produce(kafka, topics.POSTS, 0)
    wait = Waiting(kafka, timeout_s=120.0)
    wait.until_at("contexts", topics.POSTS)
    fresh_broker.kill()
    wait.until_at("contexts", topics.ACTIVITY, None)
    fresh_broker.start()
    commit_all(fresh_broker, kafka, topics.CONTEXTS_GROUP, topics.POSTS)
    wait.until_at("contexts", topics.REPUBLISH, 2)
    commit_all(fresh_broker, kafka, topics.CONTEXTS_GROUP, topics.REPUBLISH)
    wait.join()
    assert wait.error is None
