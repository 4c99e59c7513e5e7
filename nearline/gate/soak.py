"""Check 6: for a while, the generation keeps up with live events as well as the serving one does.

Compared is the age of the oldest record that encode or index has not processed yet, at its worst. What is younger than
the bound of live events counts as new for both.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from typing import Final, NamedTuple

from nearline.gate.figures import at_most, unmeasured
from nearline.gate.names import AGE
from schemas.generations import GateFigure, GenerationRecord
from schemas.ids import ContextVersion, Generation
from schemas.stages import live_reads
from schemas.topics import FIRST_CONTEXTS
from streams.kafka.offsets import OffsetReader
from streams.operate.lag import Lag, read_lags
from streams.settings import KafkaSettings

_LOOK_EVERY_S: Final = 0.5
_ASK_S: Final = 10.0
_PROBE_S: Final = 1.0
_MOST_KNOWN: Final = 0.9
"""Of the looks. A record in an open transaction has no age yet, so a few looks say nothing."""


class Look(NamedTuple):
    """The age in seconds of the oldest record that waits, at one moment; 0 if none waits. None if nobody can say."""

    serving_s: float | None
    beside_s: float | None
    num_records: int
    """How many records wait for either."""


Looks = Callable[[], Look]


def soak(look: Looks, soak_s: float, live_bound_s: float, clock: Callable[[], float] = time.monotonic) -> GateFigure:
    """Looks again and again for `soak_s`. Raises what `look` raises."""
    ends_at = clock() + soak_s
    looks = [look()]
    while clock() < ends_at:
        time.sleep(min(_LOOK_EVERY_S, soak_s))
        looks.append(look())
    known = [one for one in looks if one.serving_s is not None and one.beside_s is not None]
    if len(known) < _MOST_KNOWN * len(looks):
        why = (
            f"only {len(known)} of {len(looks)} times anybody could say how old the oldest record is; see whether both "
            "places run and all topics are there: nearline status"
        )
        return unmeasured(AGE, why, live_bound_s)
    serving_s, beside_s = ([one[at] or 0.0 for one in known] for at in (0, 1))
    bound_s = max(*serving_s, live_bound_s)
    note = f"over {soak_s:g} s, {len(looks)} looks; the serving one's: {max(serving_s):.1f} s"
    if not any(one.num_records for one in looks):
        note += "; nothing came in meanwhile, so this shows little: run it beside live events"
    if max(beside_s) > bound_s:
        note += "; its place does not keep up: give it more cores or a device, or look at nearline status"
    return at_most(AGE, max(beside_s), bound_s, note)


def ages(
    reader: OffsetReader,
    serving: Generation,
    beside: Generation,
    contexts: Mapping[Generation, ContextVersion] | None = None,
) -> Look:
    """`contexts`: the version that each reads, if it is not the first. Raises StreamsError."""
    read = contexts or {}
    lags = {
        generation: read_lags(reader, live_reads(generation, read.get(generation, FIRST_CONTEXTS)), _PROBE_S)
        for generation in (serving, beside)
    }
    num_records = sum(lag.records or 0 for of_one in lags.values() for lag in of_one)
    return Look(_oldest_s(lags[serving]), _oldest_s(lags[beside]), num_records)


def soak_beside(
    kafka: KafkaSettings, serving: GenerationRecord, beside: GenerationRecord, soak_s: float, live_bound_s: float
) -> GateFigure:
    """Raises StreamsError."""
    contexts = {record.id: record.contexts for record in (serving, beside)}
    with closing(OffsetReader(kafka, _ASK_S)) as reader:
        return soak(lambda: ages(reader, serving.id, beside.id, contexts), soak_s, live_bound_s)


def _oldest_s(lags: Iterable[Lag]) -> float | None:
    now_s = time.time()
    oldest_s = 0.0
    for lag in lags:
        if lag.records is None or (lag.records > 0 and lag.oldest_ms is None):
            return None
        if lag.oldest_ms is not None:
            oldest_s = max(oldest_s, now_s - lag.oldest_ms / 1000)
    return oldest_s
