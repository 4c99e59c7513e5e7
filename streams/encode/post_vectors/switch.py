"""Says in `post-vectors-switch` when every post has a vector of the generation that has begun to serve.

Any number of workers may look: all have one transactional id and read after they have it, so the record of an earlier
reign never follows that of a later one.
"""

from collections.abc import Callable
from contextlib import closing
from typing import Final

import structlog

from schemas.ids import Offset
from schemas.post_vectors import SWITCH_KEY, PostVectorsSwitch, decode_switch, encode_switch
from schemas.topics import POST_VECTORS, POST_VECTORS_SWITCH
from streams.encode.post_vectors.progress import read_written
from streams.encode.post_vectors.reign import Reign
from streams.errors import Fenced
from streams.kafka.command_transactions import CommandTransactions
from streams.kafka.offsets import OffsetReader, Offsets
from streams.kafka.reading import newest_value
from streams.kafka.records import Output
from streams.settings import KafkaSettings

_TRANSACTION_MS: Final = 15_000
_PROBE_S: Final = 1.0

log = structlog.get_logger(__name__)


class Switch:
    """Of one reign, for one thread."""

    def __init__(self, kafka: KafkaSettings, reign: Reign, still_serves: Callable[[], bool]) -> None:
        """`still_serves` asks the log of the generations now whether this is still the reign."""
        self._kafka = kafka
        self._reign = reign
        self._still_serves = still_serves
        self._goal: Offsets = {}
        self.is_written = False

    def write_if_complete(self) -> None:
        """Call it again until `is_written`. Raises StreamsError."""
        if self.is_written or not self._is_complete():
            return
        try:
            transactions = CommandTransactions(
                self._kafka,
                POST_VECTORS_SWITCH,
                _TRANSACTION_MS,
                fenced_by="another worker says that the post vectors are complete",
                mend="this one looks again",
            )
            self._write(transactions)
        except Fenced as error:
            log.debug("looks again", cause=str(error))

    def _write(self, transactions: CommandTransactions) -> None:
        """The id is taken, so that nobody has begun another reign's record who could end it after this."""
        newest = newest_value(self._kafka, POST_VECTORS_SWITCH, SWITCH_KEY)
        reign = self._reign
        if newest is not None:
            known = decode_switch(newest)
            self.is_written = (known.generation, known.since, known.dimension) == reign[:3]
        if self.is_written or not self._is_complete() or not self._still_serves():
            return
        with closing(OffsetReader(self._kafka)) as reader:
            ends = reader.ends(reader.places([POST_VECTORS]))
        complete = {place.partition: end for place, end in ends.items()}
        record = PostVectorsSwitch(reign.generation, reign.dimension, reign.since, complete)
        transactions.commit([Output(POST_VECTORS_SWITCH, SWITCH_KEY, encode_switch(record))])
        log.info("every post has a vector of this generation", generation=reign.generation)
        self.is_written = True

    def _is_complete(self) -> bool:
        """Whether each partition is written by this reign, up to what was there when it was first asked."""
        with closing(OffsetReader(self._kafka)) as reader:
            if not self._goal:
                self._goal = reader.ends(reader.places([self._reign.source]))
            written = read_written(self._kafka, [place.partition for place in self._goal])
            offsets = {place: self._written_to(written.get(place.partition)) for place in self._goal}
            behind: Offsets = {place: offset for place, offset in offsets.items() if offset < self._goal[place]}
            empty = reader.first_records(behind, self._goal, _PROBE_S)
            return bool(self._goal) and all(empty.get(place, True) is None for place in behind)

    def _written_to(self, written: tuple[str, Offset] | None) -> Offset:
        tag, offset = written or ("", Offset(0))
        return offset if tag == self._reign.tag else Offset(0)
