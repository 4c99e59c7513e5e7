"""Replays dead letters or drops them, and marks which: each letter once, whatever is killed meanwhile.

Owns the marks. A mark is committed in one transaction with the record that is sent back. All commands that mark use the
same transactional id, and read the unmarked letters only after they have it. So of two commands that run at the same
time one is fenced.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from confluent_kafka import TopicPartition

from schemas import topics
from schemas.dead_letters import Fate, mark_headers
from streams.errors import KafkaRefused
from streams.kafka.clients import admin
from streams.kafka.command_transactions import CommandTransactions, in_batches
from streams.kafka.kafka_errors import kafka_errors
from streams.kafka.offsets import OffsetReader
from streams.kafka.records import Output
from streams.operate.dead_letter_box import DeadLetter, Selection, first_unmarked, letters
from streams.operate.republish import republish_record
from streams.settings import KafkaSettings

_TRANSACTIONAL_ID: Final = "nearline-dead-letters"
_TRANSACTION_MS: Final = 15_000
_CALL_S: Final = 30.0
_TO_THE_END_S: Final = 30.0
"""A stage that died within a transaction holds back the end of the topic for 15 s, and until the broker's next check
for expired transactions."""
_BATCH_LETTERS: Final = 500
_BATCH_BYTES: Final = 16 * 1024 * 1024

_SENT_BACK_UNCHANGED: Final = frozenset((*topics.INPUTS, *topics.HOPS, topics.REPUBLISH))
"""Topics that only the context stage reads. A record of a later topic may be older than what its entity has by now, so
the entity is published again instead."""


class Marked(NamedTuple):
    """`num_stuck` letters cannot be replayed and stay unmarked."""

    num_marked: int
    num_stuck: int


def replay(kafka: KafkaSettings, reader: OffsetReader, selection: Selection) -> Marked:
    """Sends these letters back. Raises NoSuchDeadLetter; KafkaRefused, before anything is sent, if a letter that was
    selected by its id cannot be replayed; Fenced, StreamsError. What was committed before an error stays done."""
    with kafka_errors():
        transactions = _transactions(kafka)
        unmarked = letters(kafka, reader, selection, to_the_end_s=_TO_THE_END_S)
        if selection.ids is not None:
            unmarked = iter([letter for letter in unmarked if way_back(letter) is not None])
        num_marked = num_stuck = 0
        for batch in _batches(unmarked):
            records = [(letter, record) for letter in batch if (record := _way_back(letter)) is not None]
            transactions.commit(
                output for letter, record in records for output in (record, _mark_record(letter, "replayed"))
            )
            num_marked += len(records)
            num_stuck += len(batch) - len(records)
        return Marked(num_marked, num_stuck)


def drop(kafka: KafkaSettings, reader: OffsetReader, selection: Selection) -> int:
    """Returns the number of letters. Raises NoSuchDeadLetter, Fenced, StreamsError. What was committed before an error
    stays done."""
    with kafka_errors():
        transactions = _transactions(kafka)
        num_dropped = 0
        for batch in _batches(letters(kafka, reader, selection, to_the_end_s=_TO_THE_END_S)):
            transactions.commit(_mark_record(letter, "dropped") for letter in batch)
            num_dropped += len(batch)
        return num_dropped


def clear(kafka: KafkaSettings, reader: OffsetReader) -> None:
    """Deletes everything before the first unmarked letter of each partition, marks included. Raises StreamsError. Only
    saves space: a marked letter stays marked without it."""
    offsets = first_unmarked(kafka, reader, _TO_THE_END_S)
    client = admin(kafka)  # kept in a variable, because its answers come only while it exists
    with kafka_errors():
        requests = [TopicPartition(*place, offset) for place, offset in offsets.items()]
        for deleted in client.delete_records(requests, request_timeout=_CALL_S).values():
            deleted.result()


def way_back(letter: DeadLetter) -> Output:
    """The record that gives this letter another chance. Raises KafkaRefused if there is none."""
    record = _way_back(letter)
    if record is None:
        raise KafkaRefused(f"the dead letter {letter.id} has no key, so nothing can be published again for it; drop it")
    return record


def _way_back(letter: DeadLetter) -> Output | None:
    if topics.first_name(letter.cause.topic) in _SENT_BACK_UNCHANGED:
        return Output(letter.cause.topic, letter.key, letter.value, letter.headers)
    return None if letter.key is None else republish_record(letter.key)


def _mark_record(letter: DeadLetter, fate: Fate) -> Output:
    """Into the partition of its letter, behind it, so that retention never deletes the mark first."""
    return Output(topics.DEAD_LETTERS, str(letter.id).encode(), None, mark_headers(fate), letter.id.partition)


def _transactions(kafka: KafkaSettings) -> CommandTransactions:
    return CommandTransactions(
        kafka,
        _TRANSACTIONAL_ID,
        _TRANSACTION_MS,
        fenced_by="another command marks dead letters at the same time",
        mend="see what is left, and try again",
    )


def _batches(unmarked: Iterable[DeadLetter]) -> Iterator[list[DeadLetter]]:
    return in_batches(
        unmarked, lambda letter: len(letter.value or b""), max_records=_BATCH_LETTERS, max_bytes=_BATCH_BYTES
    )
