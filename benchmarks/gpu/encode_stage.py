"""Part 6: the encode stage without Kafka: records in, outputs out, and how much slower that is than the encoder alone.

The stage's own loop, `streams/encode/stage.py`, reads from Kafka, so it is not what runs here: each loop of this file
stands for one of its loops, in a thread, with its `EncodeTurns` and `ContextRecords`.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, Final, cast

from prometheus_client import CollectorRegistry

from benchmarks.gpu.out_of_memory import posts
from benchmarks.gpu.run import Run
from benchmarks.kit.table import Figure
from encoders.encoder import Encoder
from schemas.contexts import Context, HistoryEntry, MemberContext, PostContext, encode_context
from schemas.ids import Generation, Kind, MemberId, Micros, PostId, Revision
from schemas.topics import DEAD_LETTERS, context_names
from streams.encode.context_records import ContextRecords
from streams.encode.metrics import EncodeMetrics
from streams.encode.sources import CONCURRENT_TURNS, SOURCES, Source
from streams.encode.turns import TURN_S, EncodeTurns
from streams.kafka.records import Output

if TYPE_CHECKING:
    from confluent_kafka import Message

_BATCH_RECORDS: Final = 512
"""The default of `encode.batch_records`."""
_MEMBERS_PER_POST: Final = 1 / 64
_ENTRIES: Final = 8
_GENERATION: Final = Generation("benchmark-00000000")


class ContextRecord:
    """A record of a topic of contexts, as the Kafka client would give it."""

    def __init__(self, topic: str, offset: int, key: str, context: Context) -> None:
        self._topic = topic
        self._offset = offset
        self._key = key.encode()
        self._value = encode_context(context)

    def key(self) -> bytes:
        return self._key

    def value(self) -> bytes:
        return self._value

    def headers(self) -> Any:
        return None

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset


class Backlog:
    """The records that wait, for all loops that read them."""

    def __init__(self, records: Sequence[ContextRecord]) -> None:
        self._records = records
        self._next = 0
        self._lock = Lock()

    def take(self, count: int) -> "Sequence[Message]":
        with self._lock:
            taken = self._records[self._next : self._next + count]
            self._next += len(taken)
        return cast("Sequence[Message]", taken)


def measure(run: Run) -> None:
    run.arm("the stage's loops", partial(_loops, run))


def _loops(run: Run) -> Iterator[Figure]:
    encoder = run.models.encoder(run.models.main, limit=run.sizes.member_tokens)
    count = 2 * run.models.layout(run.models.main).num_posts
    alone_posts, alone_members = _contexts(run, count, "alone ")
    before, began = encoder.stats.tokens, time.perf_counter()
    encoder.encode_posts(alone_posts)
    encoder.encode_members(alone_members)
    alone = (encoder.stats.tokens - before) / (time.perf_counter() - began)
    stage_posts, stage_members = _contexts(run, count, "staged ")
    before, began = encoder.stats.tokens, time.perf_counter()
    outputs = _run_stage(encoder, stage_posts, stage_members)
    staged = (encoder.stats.tokens - before) / (time.perf_counter() - began)
    dead = sum(output.topic == DEAD_LETTERS for output in outputs)
    yield Figure("the encoder alone, tokens/s", alone)
    yield Figure("the stage, tokens/s", staged)
    yield Figure("the stage / the encoder alone", staged / alone)
    yield Figure("records without an output", len(stage_posts) + len(stage_members) - len(outputs), 0, "at_most")
    yield Figure("dead letters", dead, 0, "at_most")


def _contexts(run: Run, count: int, name: str) -> tuple[list[PostContext], list[MemberContext]]:
    members = max(1, int(count * _MEMBERS_PER_POST))
    texts = run.models.posts(members * _ENTRIES, f"{name}history ")
    entries = [HistoryEntry(PostId(text[:20]), "like", Micros(1), text[:200]) for text in texts]
    return posts(run.models.posts(count, name)), [
        MemberContext(
            MemberId(f"m{member}"), Revision(1), Micros(1), history=entries[member * _ENTRIES : (member + 1) * _ENTRIES]
        )
        for member in range(members)
    ]


def _run_stage(
    encoder: Encoder, post_contexts: Sequence[PostContext], member_contexts: Sequence[MemberContext]
) -> list[Output]:
    """As `streams.encode.stage` puts its loops together."""
    by_kind: dict[Kind, Sequence[Context]] = {"post": post_contexts, "member": member_contexts}
    ids: dict[Kind, list[str]] = {
        "post": [context.post_id for context in post_contexts],
        "member": [context.member_id for context in member_contexts],
    }
    topics = {source.kind: context_names().of_kind(source.kind) for source in SOURCES}
    backlogs = {
        kind: Backlog(
            [
                ContextRecord(topics[kind], offset, key, context)
                for offset, (key, context) in enumerate(zip(ids[kind], by_kind[kind], strict=True))
            ]
        )
        for kind in by_kind
    }
    metrics = EncodeMetrics(CollectorRegistry())
    outputs: list[Output] = []
    with ThreadPoolExecutor(CONCURRENT_TURNS, thread_name_prefix="turn") as device, ThreadPoolExecutor() as loops:
        running = [
            loops.submit(_run_loop, source, encoder, device, metrics, backlogs[source.kind]) for source in SOURCES
        ]
        for loop in running:
            outputs += loop.result()
    return outputs


def _run_loop(
    source: Source, encoder: Encoder, device: ThreadPoolExecutor, metrics: EncodeMetrics, backlog: Backlog
) -> list[Output]:
    turns = EncodeTurns(source.kind, encoder, device, Event(), metrics=metrics, turn_s=TURN_S[source.kind])
    contexts = ContextRecords(_GENERATION, turns, metrics)
    outputs: list[Output] = []
    while records := backlog.take(min(_BATCH_RECORDS, contexts.turn_contexts)):
        outputs += contexts.encode(records)
    return outputs
