"""Dead letters as an operator sees them: those that nobody has replayed or dropped."""

from collections.abc import Iterable
from contextlib import closing

import pytest
from confluent_kafka import Consumer, Message

from schemas import topics
from schemas.dead_letters import DeadLetterId, mark_headers, read_mark
from schemas.ids import Millis, Offset, Partition
from streams.errors import KafkaRefused, KafkaUnavailable, NoSuchDeadLetter
from streams.kafka import reading as scan_module
from streams.kafka.clients import consumer_config
from streams.kafka.offsets import OffsetReader, Offsets
from streams.kafka.records import Output, Place
from streams.operate import dead_letter_box
from streams.operate.dead_letter_box import DeadLetter, LetterCount, Selection, count, letters, parse_id
from streams.operate.dead_letter_counts import LetterClass
from streams.operate.dead_letter_replay import way_back
from streams.settings import KafkaSettings
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.dead_letters import cause_of_death, dead_letter_ids, send_dead_letter, send_to_dead_letters
from tests.kit.kafka.topics import delete_before, transaction


def letter(topic: str, key: bytes | None = b"p1") -> DeadLetter:
    return DeadLetter(
        DeadLetterId(Partition(0), Offset(0)),
        Millis(0),
        cause_of_death(topic),
        key,
        b"v",
        [(topics.ORIGIN_HEADER, b"5")],
    )


def test_an_input_is_sent_back_unchanged() -> None:
    expected = Output(topics.POSTS, b"p1", b"v", [(topics.ORIGIN_HEADER, b"5")])
    assert way_back(letter(topics.POSTS)) == expected


@pytest.mark.parametrize("topic", [topics.POST_CONTEXTS, topics.MEMBER_CONTEXTS, "post-embeddings.g"])
def test_a_later_stage_has_its_entity_published_again(topic: str) -> None:
    assert way_back(letter(topic)) == Output(topics.REPUBLISH, b"p1", None)


def test_a_letter_without_a_key_cannot_be_replayed() -> None:
    with pytest.raises(KafkaRefused, match="0:0 has no key"):
        way_back(letter(topics.POST_CONTEXTS, None))


@pytest.mark.parametrize("text", ["", "1", "1:", ":1", "a:b", "1:-2", "1:2:3", "²:1"])
def test_a_text_that_is_no_id_is_named(text: str) -> None:
    with pytest.raises(NoSuchDeadLetter, match="no id of a dead letter"):
        parse_id(text)


@pytest.mark.broker
def test_letters_are_listed_with_their_cause(kafka: KafkaSettings, reader: OffsetReader) -> None:
    assert count(kafka, reader) == LetterCount(0, exact=True)
    send_dead_letter(kafka, topics.POSTS, b"one", 1)
    send_dead_letter(kafka, topics.ACTIVITY, b"two", 0)
    listed = list(letters(kafka, reader))
    assert [(str(letter.id), letter.cause.topic, letter.value) for letter in listed] == [
        ("0:0", topics.ACTIVITY, b"two"),
        ("1:0", topics.POSTS, b"one"),
    ]
    assert listed[0].cause == cause_of_death(topics.ACTIVITY)
    assert listed[0].headers == [("own", b"1")]
    assert listed[0].died_ms > 0


@pytest.mark.broker
def test_the_count_is_exact_in_spite_of_transactions_and_marks(kafka: KafkaSettings, reader: OffsetReader) -> None:
    for committed in (True, False):
        transaction(kafka, topics.DEAD_LETTERS, 0, commit=committed)
    send_dead_letter(kafka, topics.POSTS, b"one")
    send_to_dead_letters(kafka, 0, b"0:0", None, mark_headers("dropped"))
    assert count(kafka, reader) == LetterCount(1, exact=True)
    without_time = count(kafka, reader, within_s=-1)
    assert not without_time.exact
    assert without_time.number >= 4, "a bound, by offsets"


class Silent(Consumer):
    """The broker sends nothing."""

    def consume(self, *_: object, **__: object) -> list[Message]:
        return []


@pytest.mark.broker
def test_a_count_ends_in_time_whatever_the_broker_does(
    kafka: KafkaSettings, reader: OffsetReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_dead_letter(kafka, topics.POSTS, b"one")
    monkeypatch.setattr(dead_letter_box, "scanner", lambda kafka: Silent(consumer_config(kafka, "silent")))
    assert count(kafka, reader, within_s=0.05) == LetterCount(1, exact=False)
    monkeypatch.setattr(scan_module, "_QUIET_S", 0.05)
    with pytest.raises(KafkaUnavailable, match="sent nothing"):
        count(kafka, reader, within_s=60.0)


@pytest.mark.broker
def test_too_many_to_be_counted_are_not_read(
    kafka: KafkaSettings, reader: OffsetReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letter_box, "_MOST_COUNTED_A_SECOND", 2)
    for number in range(3):
        assert count(kafka, reader) == LetterCount(number, exact=True)
        send_dead_letter(kafka, topics.POSTS, b"one")
    assert count(kafka, reader) == LetterCount(3, exact=False)


@pytest.mark.broker
def test_letters_that_are_deleted_meanwhile_are_not_subtracted(
    kafka: KafkaSettings, clean_topics: RunningBroker
) -> None:
    class LooksTooEarly(OffsetReader):
        def starts(self, places: Iterable[Place]) -> Offsets:
            return dict.fromkeys(places, Offset(0))

    for _ in range(2):
        send_dead_letter(kafka, topics.POSTS, b"one")
        send_to_dead_letters(kafka, 0, b"0:0", None, mark_headers("dropped"))
    delete_before(clean_topics, topics.DEAD_LETTERS, 0, 1)
    with closing(LooksTooEarly(kafka)) as early:
        assert count(kafka, early) == LetterCount(1, exact=True)
    delete_before(clean_topics, topics.DEAD_LETTERS, 0, 3)
    with closing(LooksTooEarly(kafka)) as early:
        assert count(kafka, early) == LetterCount(0, exact=True)


@pytest.mark.broker
def test_marked_letters_are_left_out(kafka: KafkaSettings, reader: OffsetReader) -> None:
    for number in range(4):
        send_dead_letter(kafka, topics.POSTS, b"%d" % number, number % 2)
    send_to_dead_letters(kafka, 0, b"0:1", None, mark_headers("replayed"))
    send_to_dead_letters(kafka, 0, b"0:1", None, mark_headers("replayed"))
    send_to_dead_letters(kafka, 0, b"1:0", None, mark_headers("dropped"))  # of another partition: read by nobody
    send_to_dead_letters(kafka, 0, b"no id", None, mark_headers("dropped"))
    assert dead_letter_ids(kafka, reader) == ["0:0", "1:0", "1:1"]
    assert count(kafka, reader) == LetterCount(3, exact=True)
    with pytest.raises(NoSuchDeadLetter, match="the dead letter 0:1 is replayed already"):
        dead_letter_ids(kafka, reader, Selection((parse_id("1:0"), parse_id("0:1"))))


@pytest.mark.broker
def test_a_record_with_a_marks_header_is_a_letter_when_it_dies(kafka: KafkaSettings, reader: OffsetReader) -> None:
    send_dead_letter(kafka, topics.POSTS, b"one")
    send_dead_letter(kafka, topics.POSTS, b"two", headers=mark_headers("dropped"))
    assert dead_letter_ids(kafka, reader) == ["0:0", "0:1"]
    assert read_mark(b"0:0", mark_headers("dropped")) == (DeadLetterId(Partition(0), Offset(0)), "dropped")


@pytest.mark.broker
def test_letters_are_chosen_by_id_cause_and_age(kafka: KafkaSettings, reader: OffsetReader) -> None:
    for number in range(3):
        send_dead_letter(kafka, topics.POSTS, b"%d" % number)
    (_, second, _) = letters(kafka, reader)
    chosen = tuple(map(parse_id, ("0:2", "0:0", "0:2")))
    assert dead_letter_ids(kafka, reader, Selection(chosen)) == ["0:2", "0:0"]
    assert dead_letter_ids(kafka, reader, Selection(cause="too long")) == ["0:0", "0:1", "0:2"]
    assert dead_letter_ids(kafka, reader, Selection(cause="too short")) == []
    assert "0:2" not in dead_letter_ids(kafka, reader, Selection(before_ms=second.died_ms))
    bad = LetterClass("contexts", "bad_record")
    assert dead_letter_ids(kafka, reader, Selection(letter_class=bad)) == ["0:0", "0:1", "0:2"]
    assert dead_letter_ids(kafka, reader, Selection(letter_class=bad._replace(stage="encode"))) == []
    for missing in ("0:3", "9:0"):
        with pytest.raises(NoSuchDeadLetter, match=f"there is no dead letter {missing}"):
            dead_letter_ids(kafka, reader, Selection((parse_id(missing),)))
