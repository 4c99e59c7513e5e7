"""Sends dead letters back, or drops them, and marks which: each letter once, whatever is killed meanwhile.

Owns the marks. A mark is committed in one transaction with the record that goes back. All who mark use one
transactional id, and read which letters are left after they have it: of two at the same time one is fenced.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from confluent_kafka import KafkaException, Producer, TopicPartition

from schemas import topics
from schemas.dead_letters import Fate, mark_headers
from streams.errors import Fenced, KafkaRefused
from streams.kafka.clients import admin, kafka_errors, producer_config
from streams.kafka.offsets import OffsetReader
from streams.kafka.records import Output
from streams.kafka.sending import produce
from streams.operate.dead_letter_box import DeadLetter, Selection, first_left, letters
from streams.operate.republish import republish_record
from streams.settings import KafkaSettings

_TRANSACTIONAL_ID: Final = "nearline-dead-letters"
_TRANSACTION_MS: Final = 15_000
_CALL_S: Final = 30.0
_TO_THE_END_S: Final = 30.0
"""A stage that died within a transaction holds back the end of the topic for its 15 s, and the broker's check."""
_BATCH_LETTERS: Final = 500
_BATCH_BYTES: Final = 16 * 1024 * 1024
"""Who reads what is sent back waits for the whole transaction."""

_SENT_BACK_AS_THEY_ARE: Final = frozenset((*topics.INPUTS, *topics.HOPS, topics.REPUBLISH))
"""What only the context stage reads. A record of a later topic may be older than what is there now, so its entity is
published again instead."""


class Marked(NamedTuple):
    """`num_stuck` letters have no way back and stay as they are."""

    num_marked: int
    num_stuck: int


def replay(kafka: KafkaSettings, reader: OffsetReader, wanted: Selection) -> Marked:
    """Sends these letters back. Raises NoSuchDeadLetter; KafkaRefused for a chosen one that has no way back, before
    anything is sent; Fenced, StreamsError. What was committed before an error stays done."""
    with kafka_errors():
        producer = _producer(kafka)
        left = letters(kafka, reader, wanted, to_the_end_s=_TO_THE_END_S)
        if wanted.ids is not None:
            left = iter([letter for letter in left if way_back(letter) is not None])
        num_marked = num_stuck = 0
        for batch in _batches(left):
            records = [(letter, record) for letter in batch if (record := _way_back(letter)) is not None]
            _commit(producer, (output for pair in records for output in (pair[1], _mark(pair[0], "replayed"))))
            num_marked += len(records)
            num_stuck += len(batch) - len(records)
        return Marked(num_marked, num_stuck)


def drop(kafka: KafkaSettings, reader: OffsetReader, wanted: Selection) -> int:
    """Returns how many. Raises NoSuchDeadLetter, Fenced, StreamsError. What was committed before an error stays."""
    with kafka_errors():
        producer = _producer(kafka)
        num_dropped = 0
        for batch in _batches(letters(kafka, reader, wanted, to_the_end_s=_TO_THE_END_S)):
            _commit(producer, (_mark(letter, "dropped") for letter in batch))
            num_dropped += len(batch)
        return num_dropped


def clear(kafka: KafkaSettings, reader: OffsetReader) -> None:
    """Deletes what lies before the first letter that is left, marks included. Raises StreamsError; the marks hold
    without it."""
    places = [TopicPartition(*place, offset) for place, offset in first_left(kafka, reader, _TO_THE_END_S).items()]
    client = admin(kafka)  # answers come only while somebody holds it
    with kafka_errors():
        for deleted in client.delete_records(places, request_timeout=_CALL_S).values():
            deleted.result()


def way_back(letter: DeadLetter) -> Output:
    """The record that gives this letter another chance. Raises KafkaRefused where nothing can."""
    record = _way_back(letter)
    if record is None:
        raise KafkaRefused(f"the dead letter {letter.id} has no key, so nothing can be published again for it; drop it")
    return record


def _way_back(letter: DeadLetter) -> Output | None:
    if letter.cause.topic in _SENT_BACK_AS_THEY_ARE:
        return Output(letter.cause.topic, letter.key, letter.value, letter.headers)
    return None if letter.key is None else republish_record(letter.key)


def _mark(letter: DeadLetter, fate: Fate) -> Output:
    """Behind its letter, so that retention never takes it first."""
    return Output(topics.DEAD_LETTERS, str(letter.id).encode(), None, mark_headers(fate), letter.id.partition)


def _producer(kafka: KafkaSettings) -> Producer:
    """Ends what another one of this id left open, and fences it."""
    own = {"transactional.id": _TRANSACTIONAL_ID, "transaction.timeout.ms": _TRANSACTION_MS}
    producer = Producer(producer_config(kafka, **own))
    producer.init_transactions(_CALL_S)
    return producer


def _batches(left: Iterable[DeadLetter]) -> Iterator[list[DeadLetter]]:
    batch: list[DeadLetter] = []
    num_bytes = 0
    for letter in left:
        batch.append(letter)
        num_bytes += len(letter.value or b"")
        if len(batch) >= _BATCH_LETTERS or num_bytes >= _BATCH_BYTES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def _commit(producer: Producer, outputs: Iterable[Output]) -> None:
    """All of them or none. One that cannot be delivered fails the commit."""
    try:
        with kafka_errors():
            producer.begin_transaction()
            for output in outputs:
                produce(producer, output, _CALL_S)
            producer.commit_transaction(_CALL_S)
    except Fenced as error:
        # The broker's answer is the same for both.
        raise Fenced(
            "another command marks dead letters at the same time, or one transaction took longer than its "
            f"{_TRANSACTION_MS / 1000:.0f} s; see what is left, and try again"
        ) from error
    except BaseException:
        # Not left open: whoever reads these topics would wait for its end.
        with suppress(KafkaException):
            producer.abort_transaction(_CALL_S)
        raise
