"""The serving generation goes first: holds back the encode stage and the index stage of one that is being built.

Each stands back while the oldest record that the serving generation has not encoded or indexed yet has waited for
longer than a bound. Encode also does while the serving generation's wants the same device, and never reads faster than
its rate. From the moment when it is complete it is held back no more.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final, NamedTuple

import structlog

from nearline.up.residence import Resident
from schemas.ids import Millis
from schemas.stages import StageReads, live_reads
from streams.errors import StreamsError
from streams.kafka.offsets import OffsetReader
from streams.kafka.periodic import repeating
from streams.operate.lag import read_stage_lags
from streams.settings import KafkaSettings

_LOOK_EVERY_S: Final = 0.5
_PROBE_S: Final = 1.0

log = structlog.get_logger(__name__)


class LiveFirst:
    """For the loops of one process. For those of encode it implements `Pace`; index asks only whether it `may_read`.
    Make it when what it holds back is put together."""

    def __init__(
        self,
        kafka: KafkaSettings,
        resident: Resident,
        bound_s: float,
        yield_cores: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        *,
        device_is_taken: Callable[[], bool] = lambda: False,
    ) -> None:
        """`yield_cores` is called with True while the generation is being built, and with False from then on.
        `device_is_taken`: whether one that goes first has a turn on it; asked before each batch."""
        self._kafka = kafka
        self._resident = resident
        self._bound_s = bound_s
        self._yield_cores = yield_cores
        self._device_is_taken = device_is_taken
        self._clock = clock
        self._lock = Lock()
        # Guarded by the lock.
        self._allowance = 1.0
        self._counted_at = clock()
        # Written by the thread that looks, or before it starts.
        self._stands_back = False
        self._yields = False
        self._look_again_at = clock()
        self._follow_state()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Looks once, and then again and again in a thread, unless the generation is complete already."""
        if not self._is_building:
            yield
            return
        with looking_for_live_records(self._kafka, self._look):
            yield

    def may_read(self) -> bool:
        if not self._is_building:
            return True
        if self._stands_back or self._device_is_taken():
            return False
        rate = self._resident.newest.rate
        return rate is None or self._has_allowance(rate)

    def has_read(self, num_records: int) -> None:
        with self._lock:
            self._allowance -= num_records

    @property
    def _is_building(self) -> bool:
        return self._resident.newest.state == "building"

    def _has_allowance(self, rate: float) -> bool:
        """After a batch that was larger than the allowance it takes its time until there is one again."""
        with self._lock:
            now = self._clock()
            self._allowance = min(max(1.0, rate), self._allowance + (now - self._counted_at) * rate)
            self._counted_at = now
            return self._allowance > 0

    def _look(self, reader: OffsetReader) -> None:
        self._follow_state()
        now = self._clock()
        if not self._is_building or now < self._look_again_at:
            return
        serving = self._resident.state().serving
        try:
            reads = () if serving is None else live_reads(serving.id, serving.contexts)
            oldest = oldest_waiting(reader, reads)
        except StreamsError as error:
            # The stage itself waits out an outage of the broker.
            log.debug("how long live records wait is not known", error=str(error))
            return
        age_s = oldest.age_s()
        stands_back = age_s > self._bound_s
        if not (oldest.is_certain or stands_back):
            return
        if stands_back != self._stands_back:
            log.info("stands back for live records" if stands_back else "goes on", oldest_age_s=round(age_s, 1))
        self._stands_back = stands_back
        # No record can have waited for longer than the bound before then.
        self._look_again_at = now + self._bound_s - age_s

    def _follow_state(self) -> None:
        if self._is_building != self._yields:
            self._yields = self._is_building
            self._yield_cores(self._yields)


class OldestWaiting(NamedTuple):
    """The oldest record that some stages have still to process. `at_ms`: its timestamp; None without one.
    `is_certain`: False if there are records that cannot be read now, which may be older."""

    at_ms: Millis | None
    is_certain: bool

    def age_s(self) -> float:
        return 0.0 if self.at_ms is None else max(0.0, time.time() - self.at_ms / 1000)


def oldest_waiting(reader: OffsetReader, reads: Iterable[StageReads]) -> OldestWaiting:
    """Raises StreamsError."""
    lags = [lag for stage in read_stage_lags(reader, reads, _PROBE_S) for lag in stage.partitions.values()]
    oldest_ms = min((lag.oldest_ms for lag in lags if lag.oldest_ms is not None), default=None)
    return OldestWaiting(oldest_ms, all(lag.oldest_ms is not None for lag in lags if lag.records))


@contextmanager
def looking_for_live_records(kafka: KafkaSettings, look: Callable[[OffsetReader], None]) -> Iterator[None]:
    """Calls `look` once, and then again and again in a thread."""
    # Never closed: at the end of the process the thread may still ask.
    reader = OffsetReader(kafka)
    # Before the loops begin: they would read a first batch while nobody knows yet whether live records wait.
    look(reader)
    with repeating("looking whether live records wait", _LOOK_EVERY_S, lambda: look(reader)):
        yield
