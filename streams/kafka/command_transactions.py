"""The transactions of a command that may run twice at the same time, or be killed and called again: everybody who does
the same work has one transactional id, so of two the later one fences the other, and ends what a dead one left open.

Knows no topic. What is read by those who write must be read after the id was taken.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Final, TypeVar

from confluent_kafka import KafkaException

from streams.errors import Fenced
from streams.kafka.clients import new_producer
from streams.kafka.kafka_errors import kafka_errors
from streams.kafka.records import Output
from streams.kafka.sending import produce
from streams.settings import KafkaSettings

_CALL_S: Final = 30.0

Record = TypeVar("Record")


class CommandTransactions:
    def __init__(
        self, kafka: KafkaSettings, transactional_id: str, transaction_ms: int, *, fenced_by: str, mend: str
    ) -> None:
        """Takes the id. This ends the transaction that another producer with it left open, and fences that producer.
        `fenced_by` and `mend` are the beginning and the end of what the user reads if this one is fenced."""
        self._fenced = f"{fenced_by}, or one transaction took longer than its {transaction_ms / 1000:.0f} s; {mend}"
        overrides = {"transactional.id": transactional_id, "transaction.timeout.ms": transaction_ms}
        self._producer = new_producer(kafka, **overrides)
        self._producer.init_transactions(_CALL_S)

    def commit(self, outputs: Iterable[Output]) -> None:
        """All of them or none: an output that cannot be delivered fails the commit. Raises Fenced, StreamsError."""
        try:
            with kafka_errors():
                self._producer.begin_transaction()
                for output in outputs:
                    produce(self._producer, output)
                self._producer.commit_transaction(_CALL_S)
        except Fenced as error:
            # The broker gives the same answer to who is fenced and to who was too slow.
            raise Fenced(self._fenced) from error
        except BaseException:
            # An open transaction would hold up everybody who reads these topics.
            with suppress(KafkaException):
                self._producer.abort_transaction(_CALL_S)
            raise


def in_batches(
    records: Iterable[Record], size_bytes: Callable[[Record], int], *, max_records: int, max_bytes: int
) -> Iterator[list[Record]]:
    """Each batch is full by either measure, but for the last. Readers wait for a whole transaction."""
    batch: list[Record] = []
    num_bytes = 0
    for record in records:
        batch.append(record)
        num_bytes += size_bytes(record)
        if len(batch) >= max_records or num_bytes >= max_bytes:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch
