"""Dead letters as an operator sees them, and the way back of each kind."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from confluent_kafka import Producer

from schemas import topics
from schemas.dead_letters import DeadLetterCause, to_headers
from schemas.ids import Millis, Offset, Partition
from streams.dead_letter_box import DeadLetter, DeadLetterId, chosen, count, letters, parse_id, send_back, way_back
from streams.errors import KafkaRefused, NoSuchDeadLetter
from streams.kafka import producer_config
from streams.lag import OffsetReader
from streams.records import Output, Place
from streams.scan import scan, scanner
from streams.settings import KafkaSettings
from tests.conftest import RunningBroker
from tests.streams.offsets import made, transaction


def cause(topic: str, stage: str = "contexts") -> DeadLetterCause:
    return DeadLetterCause(stage, topic, Partition(1), Offset(7), "text: too long")


def letter(topic: str, key: bytes | None = b"p1") -> DeadLetter:
    return DeadLetter(
        DeadLetterId(Partition(0), Offset(0)), Millis(0), cause(topic), key, b"v", [(topics.ORIGIN_HEADER, b"5")]
    )


def test_an_input_goes_back_as_it_was() -> None:
    expected = Output(topics.POSTS, b"p1", b"v", [(topics.ORIGIN_HEADER, b"5")])
    assert way_back(letter(topics.POSTS)) == expected


@pytest.mark.parametrize("topic", [topics.POST_CONTEXTS, topics.MEMBER_CONTEXTS, "post-embeddings.g"])
def test_a_later_stage_has_its_entity_published_again(topic: str) -> None:
    assert way_back(letter(topic)) == Output(topics.REPUBLISH, b"p1", None)


def test_without_a_key_there_is_no_way_back() -> None:
    with pytest.raises(KafkaRefused, match="0:0 has no key"):
        way_back(letter(topics.POST_CONTEXTS, None))


@pytest.mark.parametrize("text", ["", "1", "1:", ":1", "a:b", "1:-2", "1:2:3", "²:1"])
def test_what_is_no_id_is_said(text: str) -> None:
    with pytest.raises(NoSuchDeadLetter, match="no id of a dead letter"):
        parse_id(text)


@pytest.fixture
def kafka(clean_topics: RunningBroker) -> KafkaSettings:
    return made(clean_topics)


@pytest.fixture
def reader(kafka: KafkaSettings) -> Iterator[OffsetReader]:
    with closing(OffsetReader(kafka)) as reader:
        yield reader


def die(kafka: KafkaSettings, topic: str, value: bytes, partition: int = 0) -> None:
    producer = Producer(producer_config(kafka))
    headers: list[tuple[str, str | bytes | None]] = [("own", b"1"), *to_headers(cause(topic))]
    producer.produce(topics.DEAD_LETTERS, value, b"p1", partition=partition, headers=headers)
    assert producer.flush(20) == 0


@pytest.mark.broker
def test_letters_are_listed_with_their_cause(kafka: KafkaSettings, reader: OffsetReader) -> None:
    assert count(kafka, reader) == 0
    die(kafka, topics.POSTS, b"one", 1)
    die(kafka, topics.ACTIVITY, b"two", 0)
    found = list(letters(kafka, reader))
    assert [(str(one.id), one.cause.topic, one.value) for one in found] == [
        ("0:0", topics.ACTIVITY, b"two"),
        ("1:0", topics.POSTS, b"one"),
    ]
    assert found[0].cause == cause(topics.ACTIVITY)
    assert found[0].headers == [("own", b"1")]
    assert found[0].died_ms > 0


@pytest.mark.broker
def test_the_count_is_exact_in_spite_of_transactions(kafka: KafkaSettings, reader: OffsetReader) -> None:
    for committed in (True, False):
        transaction(kafka, topics.DEAD_LETTERS, 0, commit=committed)
    die(kafka, topics.POSTS, b"one")
    assert count(kafka, reader) == 2
    assert count(kafka, reader, exact_up_to=1) >= 3


@pytest.mark.broker
def test_chosen_ones_are_sent_back(kafka: KafkaSettings, reader: OffsetReader) -> None:
    die(kafka, topics.POSTS, b"one")
    die(kafka, topics.POSTS, b"two")
    found = chosen(kafka, reader, [parse_id("0:1")])
    assert send_back(kafka, found) == 1
    assert sent(kafka, reader, topics.POSTS) == [(b"p1", b"two")]
    with pytest.raises(NoSuchDeadLetter, match="there is no dead letter 0:2"):
        chosen(kafka, reader, [parse_id("0:2")])
    with pytest.raises(NoSuchDeadLetter, match="there is no dead letter 9:0"):
        chosen(kafka, reader, [parse_id("9:0")])


def sent(kafka: KafkaSettings, reader: OffsetReader, topic: str) -> list[tuple[bytes | None, bytes | None]]:
    places = [Place(*place) for place in reader.places([topic])]
    ends = reader.ends(places)
    with closing(scanner(kafka)) as consumer:
        return [(m.key(), m.value()) for place in places for m in scan(consumer, place, Offset(0), ends[place])]
