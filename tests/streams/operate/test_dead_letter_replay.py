"""Letters are replayed or dropped once, whatever is killed meanwhile."""

from collections.abc import Iterator
from typing import Any, Self

import pytest
from confluent_kafka import Consumer, Message, Producer

from schemas import topics
from schemas.dead_letters import to_headers
from schemas.ids import Offset
from streams.errors import Fenced, KafkaRefused, KafkaUnavailable, NoSuchDeadLetter
from streams.kafka import command_transactions, reading
from streams.kafka.clients import producer_config
from streams.kafka.offsets import OffsetReader
from streams.kafka.records import Place
from streams.operate import dead_letter_box, dead_letter_replay
from streams.operate.dead_letter_box import ALL, LetterCount, Selection, count, letters, parse_id
from streams.operate.dead_letter_replay import Marked, clear, drop, replay
from streams.settings import KafkaSettings
from tests.kit.kafka.dead_letters import cause_of_death, dead_letter_ids, send_dead_letter, send_to_dead_letters
from tests.kit.kafka.topics import keys_and_values, transaction
from tests.kit.waiting import until

pytestmark = pytest.mark.broker


class DiesBeforeItsCommit(Producer):
    """Has sent everything, and is killed before it ends the transaction."""

    @classmethod
    def new(cls, kafka: KafkaSettings, **overrides: object) -> Self:
        return cls(producer_config(kafka, **overrides))

    def commit_transaction(self, *_: object) -> None:
        assert self.flush(20) == 0
        raise SystemExit("killed")

    def abort_transaction(self, *_: object) -> None:
        pass


def test_a_letter_is_replayed_once(kafka: KafkaSettings, reader: OffsetReader) -> None:
    for number in range(3):
        send_dead_letter(kafka, topics.POSTS, b"%d" % number)
    assert replay(kafka, reader, Selection((parse_id("0:1"),))) == Marked(1, 0)
    assert keys_and_values(kafka, topics.POSTS) == [(b"p1", b"1")]
    with pytest.raises(NoSuchDeadLetter, match="0:1 is replayed already"):
        replay(kafka, reader, Selection((parse_id("0:1"),)))
    assert replay(kafka, reader, ALL) == Marked(2, 0)
    assert replay(kafka, reader, ALL) == Marked(0, 0)
    assert sorted(keys_and_values(kafka, topics.POSTS)) == [(b"p1", b"%d" % number) for number in range(3)]
    assert count(kafka, reader) == LetterCount(0, exact=True)


def test_a_dropped_letter_is_sent_nowhere(kafka: KafkaSettings, reader: OffsetReader) -> None:
    for number in range(3):
        send_dead_letter(kafka, topics.POSTS, b"%d" % number)
    assert drop(kafka, reader, Selection((parse_id("0:1"),))) == 1
    until_listed(kafka, reader, "0:0", "0:2")
    assert drop(kafka, reader, ALL) == 2
    assert keys_and_values(kafka, topics.POSTS) == []
    until_listed(kafka, reader)


def test_many_letters_take_several_transactions(
    kafka: KafkaSettings, reader: OffsetReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letter_replay, "_BATCH_LETTERS", 2)
    for number in range(5):
        send_dead_letter(kafka, topics.POSTS, b"%d" % number)
    assert drop(kafka, reader, ALL) == 5
    until_listed(kafka, reader)


def until_listed(kafka: KafkaSettings, reader: OffsetReader, *ids: str) -> None:
    """A broker writes the mark of a commit a moment after it has confirmed it."""
    until(lambda: dead_letter_ids(kafka, reader) == [*ids], f"only {ids} to be listed")


def test_a_command_that_is_killed_before_its_commit_has_sent_nothing(
    kafka: KafkaSettings, reader: OffsetReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_dead_letter(kafka, topics.POSTS, b"one")
    with monkeypatch.context() as killed:
        killed.setattr(command_transactions, "new_producer", DiesBeforeItsCommit.new)
        with pytest.raises(SystemExit):
            replay(kafka, reader, ALL)
    assert dead_letter_ids(kafka, reader) == ["0:0"]
    assert replay(kafka, reader, ALL) == Marked(1, 0)
    assert keys_and_values(kafka, topics.POSTS) == [(b"p1", b"one")]


def test_of_two_commands_one_is_fenced(kafka: KafkaSettings, reader: OffsetReader) -> None:
    send_dead_letter(kafka, topics.POSTS, b"one")
    (letter,) = letters(kafka, reader)
    slow = dead_letter_replay._transactions(kafka)
    assert replay(kafka, reader, ALL) == Marked(1, 0)
    with pytest.raises(
        Fenced, match=r"another command marks dead letters .*, or one transaction took longer than its 15 s"
    ):
        slow.commit([dead_letter_replay.way_back(letter)])
    assert keys_and_values(kafka, topics.POSTS) == [(b"p1", b"one")]


def test_letters_in_a_stages_open_transaction_are_waited_for(
    kafka: KafkaSettings, reader: OffsetReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Marks of another command may come after them."""
    send_dead_letter(kafka, topics.POSTS, b"one")
    stage = transaction(kafka, topics.DEAD_LETTERS, 0, commit=None)
    assert dead_letter_ids(kafka, reader) == ["0:0"]
    monkeypatch.setattr(reading, "_QUIET_S", 0.5)
    with monkeypatch.context() as impatient:
        impatient.setattr(dead_letter_replay, "_TO_THE_END_S", 0.5)
        with pytest.raises(KafkaUnavailable, match="a transaction there is open"):
            drop(kafka, reader, ALL)
    stage.commit_transaction(20)
    assert drop(kafka, reader, ALL) == 2


def test_a_letter_without_a_key_stays_and_the_others_are_replayed(kafka: KafkaSettings, reader: OffsetReader) -> None:
    for key in (None, b"p1"):
        send_to_dead_letters(kafka, 0, key, b"v", to_headers(cause_of_death(topics.POST_CONTEXTS)))
    with pytest.raises(KafkaRefused, match="0:0 has no key"):
        replay(kafka, reader, Selection((parse_id("0:1"), parse_id("0:0"))))
    assert keys_and_values(kafka, topics.REPUBLISH) == []
    assert replay(kafka, reader, ALL) == Marked(1, 1)
    assert keys_and_values(kafka, topics.REPUBLISH) == [(b"p1", None)]
    assert dead_letter_ids(kafka, reader) == ["0:0"]


def test_everything_before_the_first_unmarked_letter_is_deleted(kafka: KafkaSettings, reader: OffsetReader) -> None:
    for number in range(4):
        send_dead_letter(kafka, topics.POSTS, b"%d" % number, 0)
    send_dead_letter(kafka, topics.POSTS, b"other", 1)
    drop(kafka, reader, Selection(tuple(map(parse_id, ("0:0", "0:1", "0:3")))))
    clear(kafka, reader)
    assert [reader.starts([place])[place] for place in reader.places([topics.DEAD_LETTERS])] == [2, 0]
    assert dead_letter_ids(kafka, reader) == ["0:2", "1:0"]
    assert count(kafka, reader) == LetterCount(2, exact=True)
    drop(kafka, reader, ALL)
    places = reader.places([topics.DEAD_LETTERS])

    def nothing_is_left() -> bool:
        """The marker that ends a transaction may be written only after `clear`."""
        clear(kafka, reader)
        return reader.starts(places) == reader.ends(places)

    until(nothing_is_left, "the topic to be empty")


def test_an_end_that_is_reported_too_early_deletes_no_letter(
    kafka: KafkaSettings, reader: OffsetReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker may report the end of a partition before the end that was asked for. Then only a reader that waits for
    that end reads on."""
    send_dead_letter(kafka, topics.POSTS, b"one")

    scan = reading.scan

    def too_early(consumer: Consumer, place: Place, start: Offset, end: Offset, **options: Any) -> Iterator[Message]:
        return iter(()) if options["to_the_end_s"] is None else scan(consumer, place, start, end, **options)

    with monkeypatch.context() as early:
        for module in (reading, dead_letter_box):
            early.setattr(module, "scan", too_early)
        clear(kafka, reader)
        assert dead_letter_ids(kafka, reader) == []
        assert len(list(letters(kafka, reader, to_the_end_s=5.0))) == 1, (
            "a command for all letters does not miss it either"
        )
    assert dead_letter_ids(kafka, reader) == ["0:0"]
