"""Reads the topic `generations`, and writes to it for an operator.

All operators use one transactional id, and read only after they have it. So of two that work at the same time the
earlier one is fenced, and nobody writes on a state that has changed. Does not know what may be changed: `acts.py`.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from typing import Final

from confluent_kafka import KafkaException, Producer

from schemas.generations import Record, encode_record, key_of
from schemas.topics import GENERATIONS
from streams.errors import Fenced, GenerationsDamaged, KafkaUnavailable
from streams.generations.last_state import FILE
from streams.generations.state import Generations
from streams.kafka.clients import new_producer
from streams.kafka.crash_points import crash_point
from streams.kafka.kafka_errors import kafka_errors
from streams.kafka.offsets import OffsetReader
from streams.kafka.reading import scan_all, scanner
from streams.kafka.records import Output, offset_of
from streams.kafka.sending import produce
from streams.settings import KafkaSettings

_TRANSACTIONAL_ID: Final = "nearline-generations"
_TRANSACTION_MS: Final = 15_000
_CALL_S: Final = 30.0
_TO_THE_END_S: Final = 30.0
"""Who died within a transaction holds back the end of the topic for 15 s, and until the broker's next check for expired
transactions."""

Decide = Callable[[Generations], Sequence[Record]]
"""The records that an act adds to a state; none if they are there already. Raises ActRefused."""


def read_generations(kafka: KafkaSettings) -> Generations:
    """What the topic says now; nothing where it does not exist. Reads to the end that other clients may have been told
    of, and waits for a transaction that is still open. Raises GenerationsDamaged, StreamsError."""
    with closing(OffsetReader(kafka)) as reader:
        starts, ends = reader.bounds([GENERATIONS])
    state = Generations()
    with closing(scanner(kafka)) as consumer:
        for message in scan_all(consumer, starts, ends, to_the_end_s=_TO_THE_END_S):
            state = state.with_message(message.key(), message.value(), offset_of(message))
    if (contradiction := state.contradiction()) is not None:
        raise GenerationsDamaged(
            f"the topic generations contradicts itself: {contradiction}{_listed(state)}; "
            f"send a good record with the same key; each retriever keeps those that it knew last in DATA/{FILE}"
        )
    return state


def change_generations(kafka: KafkaSettings, decide: Decide) -> Generations:
    """One act of an operator: all of it or nothing. Returns the state that it leads to.

    Where records were damaged and their last good state is known, they are written again with the act, also if the act
    itself changes nothing. Raises ActRefused; Fenced if another operator came meanwhile; GenerationsDamaged,
    StreamsError. After an error that is not a refusal the act may have been done: it is safe to repeat."""
    with kafka_errors():
        # 1. Take the id. This ends the transaction that another operator left open, and fences that operator.
        producer = _producer(kafka)
        # 2. Read to the end. What another operator has committed is there now, and nothing can be added any more.
        state = read_generations(kafka)
        # 3. Check the act against the state.
        decided = decide(state)
        records = [*_mended(state, decided), *decided]
        # 4. Write all records, or none.
        if records:
            _commit(producer, records)
        return state.with_records(records)


def _producer(kafka: KafkaSettings) -> Producer:
    overrides = {"transactional.id": _TRANSACTIONAL_ID, "transaction.timeout.ms": _TRANSACTION_MS}
    producer = new_producer(kafka, **overrides)
    producer.init_transactions(_CALL_S)
    return producer


def _mended(state: Generations, records: Iterable[Record]) -> list[Record]:
    """The last good records of the keys that are damaged and not written anyway."""
    written = {key_of(record) for record in records}
    return [record for record in state.last_good if key_of(record) not in written]


def _commit(producer: Producer, records: Iterable[Record]) -> None:
    try:
        with kafka_errors():
            producer.begin_transaction()
            crash_point("generations.begun")
            for record in records:
                produce(producer, Output(GENERATIONS, key_of(record), encode_record(record)))
            num_waiting = producer.flush(_CALL_S)
            if num_waiting:
                raise KafkaUnavailable(f"{num_waiting} records of generations were not taken within {_CALL_S:.0f} s")
            crash_point("generations.records-sent")
            producer.commit_transaction(_CALL_S)
            crash_point("generations.committed")
    except Fenced as error:
        raise Fenced(
            "another operator changed the generations at the same time, or one transaction took longer than its "
            f"{_TRANSACTION_MS / 1000:.0f} s; look at: nearline generations list, and run the command again"
        ) from error
    except BaseException:
        # An open transaction would hold up everybody who follows the topic.
        with suppress(KafkaException):
            producer.abort_transaction(_CALL_S)
        raise


def _listed(state: Generations) -> str:
    return "".join(f"; {damage}" for damage in state.damages)
