"""Which records are asked for again: the newest of each entity, by time, kind and id."""

from collections.abc import Sequence

import pytest
from confluent_kafka import Producer

from schemas import topics
from schemas.ids import KINDS, Kind, Millis, Offset
from schemas.replays import ReplayRequest, decode_request
from schemas.topics import ReplayedStage
from streams.errors import BadFile, KafkaRefused, KafkaUnavailable
from streams.kafka.clients import producer_config
from streams.kafka.records import offset_of, place_of
from streams.operate import replay
from streams.operate.id_file import read_ids
from streams.operate.replay import Asked, ReplayRequests, ReplaySelection
from streams.settings import KafkaSettings
from tests.kit.data.embeddings import GENERATION
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.topics import read_topic, transaction

pytestmark = pytest.mark.broker

ALL = ReplaySelection()


def send(kafka: KafkaSettings, topic: str, *keys: str) -> None:
    """From second 1 on, each record a second later than the one before it. The client takes 0 for now."""
    producer = Producer(producer_config(kafka))
    for number, key in enumerate(keys):
        producer.produce(topic, b"x", key.encode(), timestamp=1000 * (number + 1))
    assert producer.flush(30) == 0


def ask(
    kafka: KafkaSettings,
    selection: ReplaySelection = ALL,
    kinds: Sequence[Kind] = KINDS,
    stage: ReplayedStage = "encode",
) -> Asked:
    return ReplayRequests(kafka, stage, GENERATION, selection).send(kinds)


def asked(kafka: KafkaSettings, kind: Kind = "post", stage: ReplayedStage = "encode") -> dict[str, ReplayRequest]:
    """By key. No key was asked for twice."""
    messages = read_topic(kafka, topics.replay_requests(stage, kind, GENERATION))
    requests = {(message.key() or b"").decode(): decode_request(message.value()) for message in messages}
    assert len(requests) == len(messages)
    return requests


def test_the_newest_record_of_each_entity_is_asked_for(kafka: KafkaSettings) -> None:
    send(kafka, topics.POST_CONTEXTS, *"abcab", *"bd")
    send(kafka, topics.MEMBER_CONTEXTS, "m")
    assert ask(kafka) == ({"post": 4, "member": 1}, [])
    requests = asked(kafka)
    records = read_topic(kafka, topics.POST_CONTEXTS)
    newest = {(record.key() or b"").decode(): record for record in records}
    ends = {place_of(record).partition: Offset(offset_of(record) + 1) for record in records}
    assert requests == {
        key: ReplayRequest(offset_of(record), ends[place_of(record).partition]) for key, record in newest.items()
    }
    messages = read_topic(kafka, topics.replay_requests("encode", "post", GENERATION))
    assert {message.key(): message.partition() for message in messages} == {
        record.key(): record.partition() for record in records
    }, "in the partition of the same number"
    by_partition = [(message.partition(), decode_request(message.value()).offset) for message in messages]
    assert by_partition == sorted(by_partition), "in the order in which they can be read"
    assert list(asked(kafka, "member")) == ["m"]


def test_the_index_stage_is_asked_for_embeddings(kafka: KafkaSettings) -> None:
    send(kafka, topics.post_embeddings(GENERATION), "a")
    send(kafka, topics.POST_CONTEXTS, "b")
    assert ask(kafka, stage="index") == ({"post": 1, "member": 0}, [])
    assert list(asked(kafka, stage="index")) == ["a"]
    assert asked(kafka, stage="encode") == {}


def test_one_kind_alone(kafka: KafkaSettings) -> None:
    send(kafka, topics.POST_CONTEXTS, "a")
    send(kafka, topics.MEMBER_CONTEXTS, "a")
    assert ask(kafka, kinds=["member"]) == ({"member": 1}, [])
    assert (asked(kafka), list(asked(kafka, "member"))) == ({}, ["a"])


@pytest.mark.parametrize(
    ("since_ms", "until_ms", "names"),
    [
        (4000, None, "bcd"),
        (None, 5000, "ad"),
        (3000, 7000, "d"),
        (6000, 6000, ""),
        (9000, None, ""),
        (None, None, "abcd"),
    ],
)
def test_by_the_time_of_the_newest_record(
    kafka: KafkaSettings, since_ms: int | None, until_ms: int | None, names: str
) -> None:
    """What was changed after `until` has been processed again since."""
    send(kafka, topics.POST_CONTEXTS, *"abcdcbbc")
    selection = ReplaySelection(
        None if since_ms is None else Millis(since_ms), None if until_ms is None else Millis(until_ms)
    )
    assert ask(kafka, selection, ["post"]) == ({"post": len(names)}, [])
    assert set(asked(kafka)) == set(names)


def test_by_ids_and_unknown_ones_are_named(kafka: KafkaSettings) -> None:
    send(kafka, topics.POST_CONTEXTS, *"abc")
    send(kafka, topics.MEMBER_CONTEXTS, *"bm")
    ids = frozenset({b"b", b"m", b"z", b"y"})
    assert ask(kafka, ReplaySelection(ids=ids)) == ({"post": 1, "member": 2}, [b"y", b"z"])
    assert (list(asked(kafka)), sorted(asked(kafka, "member"))) == (["b"], ["b", "m"])


def test_records_that_are_not_committed_yet_are_left_to_the_stage(kafka: KafkaSettings) -> None:
    send(kafka, topics.POST_CONTEXTS, "a")
    (record,) = read_topic(kafka, topics.POST_CONTEXTS)
    is_open = transaction(kafka, topics.POST_CONTEXTS, place_of(record).partition, commit=None)
    assert ask(kafka, kinds=["post"]) == ({"post": 1}, [])
    assert asked(kafka) == {"a": ReplayRequest(Offset(0), Offset(1))}
    is_open.abort_transaction(20)


def test_a_command_that_did_not_end_is_called_again(kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two partitions; what it has sent already is asked for twice."""
    names = [f"p{number}" for number in range(40)]
    send(kafka, topics.POST_CONTEXTS, *names)
    sent, send_all = [], replay.send_all

    def send_once(*arguments: object) -> int:
        if sent:
            raise KafkaUnavailable("killed")
        sent.append(send_all(*arguments))  # type: ignore[arg-type]
        return sent[0]

    with monkeypatch.context() as killed:
        killed.setattr(replay, "send_all", send_once)
        with pytest.raises(KafkaUnavailable, match="killed"):
            ask(kafka)
    assert 0 < len(asked(kafka)) < 40
    assert ask(kafka, kinds=["post"]) == ({"post": 40}, [])
    messages = read_topic(kafka, topics.replay_requests("encode", "post", GENERATION))
    assert {message.key() for message in messages} == {name.encode() for name in names}


def test_progress_ends_where_it_was_said_to_end(kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "_REPORT_EVERY", 10)
    send(kafka, topics.POST_CONTEXTS, *(f"p{number}" for number in range(95)))
    for selection in (ALL, ReplaySelection(since_ms=Millis(50_000))):
        looks: list[int] = []
        requests = ReplayRequests(kafka, "encode", GENERATION, selection, report=looks.append)
        assert requests.num_offsets(KINDS) == 95
        requests.send(KINDS)
        assert sum(looks) == 95
        assert len(looks) > 5


def test_a_missing_topic_is_named(clean_topics: RunningBroker) -> None:
    with pytest.raises(KafkaRefused, match="the topic post-contexts does not exist on this broker; start the pipeline"):
        ask(KafkaSettings(bootstrap_servers=clean_topics.bootstrap_servers))


def test_a_file_of_ids(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("ids") / "ids"
    file.write_text("a\n  b \r\n\na\n\u00fc\n", encoding="utf-8")
    assert read_ids(str(file)) == {b"a", b"b", "\u00fc".encode()}
    file.write_text("\n \n")
    with pytest.raises(BadFile, match="ids holds no id; write one a line"):
        read_ids(str(file))
    with pytest.raises(BadFile, match="nowhere cannot be read: No such file"):
        read_ids("nowhere")
