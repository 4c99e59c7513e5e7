"""The context stage with one worker, both hops and histories of 50 entries: its speed, and what its own work costs.

`python -m benchmarks.context_stage [--events N] [--json F]`. Starts a broker of its own in a temporary folder.

Measures the stage, and then the same transactions with an empty apply: as many records are read, sent and committed,
with the bytes that the stage itself has sent. The share is the CPU time of this process for the empty apply, divided by
that for the stage; the broker is another process. Unlike the speed it hardly depends on what else the machine does.
"""

import argparse
import itertools
import random
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from confluent_kafka import Message, Producer

from benchmarks.kit.table import Figure, report
from contexts.settings import ContextRules
from nearline.broker.embedded import EmbeddedBroker
from nearline.up.process import collect_rarely
from schemas import stages, topics
from schemas.events import Activity, Event, PostCreated, event_key, event_topic
from schemas.ids import Offset
from schemas.times import now_us
from streams.contexts.processor import ContextProcessor
from streams.contexts.stage import MAX_DUE_ROWS
from streams.kafka.clients import admin, producer_config
from streams.kafka.offsets import OffsetReader
from streams.kafka.processor import OffsetsToCommit, Processed, Processor
from streams.kafka.records import Output, Place
from streams.kafka.topics import ensure_topics
from streams.kafka.transactional_loop import TransactionalLoop
from streams.settings import ContextsSettings, KafkaSettings

MEMBERS: Final = 1_000
POSTS: Final = 5_000
HISTORY: Final = 50
ACTIONS: Final = ("like", "comment", "share", "click")
"""All of them make history, which is the most that an event can cost."""
SOURCE_OF: Final = {topics.ACTIVITY_BY_POST: topics.ACTIVITY, topics.ACTIONS_BY_MEMBER: topics.ACTIVITY_BY_POST}
"""The topic whose records produce the hops of a topic. With it the empty apply also ends two hops after the last event.
If every record produced a fraction of a hop instead, the hops would get fewer with every batch."""
REPLAYED_BYTES: Final = 64 * 1024 * 1024
"""For each topic the empty apply sends the first records of this size, over and over."""
MIN_SHARE: Final = 0.15
"""Measured beside much other work, on two shared cores: 0.20 at 710 events/s (29 of 147 us of CPU an event) and 0.24 at
2,710 (22 of 93). A slow run publishes more contexts for each event, because the windows are times. The stage's own work
is spread over decoding, rows, cells and contexts, without a hot spot. The speed has no bound: it says more about the
machine than about the stage."""
TEXT: Final = "a post of the usual length, with a few words about a thing that happened to somebody; " * 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=150_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    collect_rarely()
    with tempfile.TemporaryDirectory(prefix="nearline-benchmark-") as folder, _broker(Path(folder) / "kafka") as kafka:
        stage, recorded = _measure_stage(kafka, Path(folder), arguments.events)
        collect_rarely()
        empty = _measure_empty(kafka, recorded, arguments.events)
    return report(
        [
            Figure("input events/s", arguments.events / stage.wall_s),
            Figure("input events/s with an empty apply", arguments.events / empty.wall_s),
            Figure("CPU us an event", stage.cpu_s / arguments.events * 1e6),
            Figure("CPU us an event with an empty apply", empty.cpu_s / arguments.events * 1e6),
            Figure("share of the empty apply", empty.cpu_s / stage.cpu_s, MIN_SHARE),
        ],
        arguments.json,
    )


class Cost(NamedTuple):
    """The time that a run took, and the CPU time of this process."""

    wall_s: float
    cpu_s: float


def _measure_stage(kafka: KafkaSettings, folder: Path, num_events: int) -> tuple[Cost, "Recorded"]:
    """The cost of the stage, and the records that it sent. Histories are filled before the measurement."""
    ensure_topics(kafka, topics.core_topics())
    feed = Feed(kafka)
    feed.send(feed.posts())
    feed.send(feed.actions(MEMBERS * HISTORY))
    settings = ContextsSettings()
    processor = ContextProcessor(kafka, ContextRules(), folder / "rows", MAX_DUE_ROWS, now_us)
    recording = Recording(processor)
    _run(kafka, recording, settings)
    recording.recorded = Recorded()
    feed.send(feed.actions(num_events))
    return _run(kafka, recording, settings), recording.recorded


def _measure_empty(kafka: KafkaSettings, recorded: "Recorded", num_events: int) -> Cost:
    _delete_topics(kafka)
    ensure_topics(kafka, topics.core_topics())
    feed = Feed(kafka)
    feed.send(feed.actions(num_events))
    return _run(kafka, EmptyApply(recorded), ContextsSettings())


class Recorded:
    """The traffic of a run by topic: how many records it read and sent, and the first of the sent ones."""

    def __init__(self) -> None:
        self.num_read: Counter[str] = Counter()
        self.num_sent: Counter[str] = Counter()
        self.outputs: dict[str, list[Output]] = defaultdict(list)
        self._recorded_bytes: Counter[str] = Counter()

    def add(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            self.num_sent[output.topic] += 1
            if self._recorded_bytes[output.topic] < REPLAYED_BYTES:
                self._recorded_bytes[output.topic] += len(output.value or b"")
                self.outputs[output.topic].append(output)


class Recording:
    """The real processor. Records what it reads and sends."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        self.recorded = Recorded()
        self.on_assigned = processor.on_assigned
        self.on_revoked = processor.on_revoked
        self.rewind = processor.rewind
        self.on_committed = processor.on_committed

    def due_outputs(self, records: Sequence[Message]) -> list[Output] | None:
        outputs = self._processor.due_outputs(records)
        self.recorded.add(outputs or [])
        return outputs

    def process(self, records: Sequence[Message], offsets_to_commit: OffsetsToCommit) -> Processed:
        done = self._processor.process(records, offsets_to_commit)
        self.recorded.num_read.update(_topic(record) for record in records[: done.num_records])
        self.recorded.add(done.outputs)
        return done


class EmptyApply:
    """Sends what the real processor has sent: as many records of each topic for the same number of records read. Does
    not look at the records."""

    def __init__(self, recorded: Recorded) -> None:
        num_read = recorded.num_read
        self._rates = {
            topic: number / (num_read[SOURCE_OF[topic]] if topic in SOURCE_OF else num_read.total())
            for topic, number in recorded.num_sent.items()
        }
        # The same bytes, because bytes that compress worse cost more.
        self._outputs = {topic: itertools.cycle(outputs) for topic, outputs in recorded.outputs.items()}
        # The fractions of records that were not sent yet.
        self._due = dict.fromkeys(self._rates, 0.0)

    def on_assigned(self, committed_offsets: Mapping[Place, Offset | None]) -> None:
        pass

    def on_revoked(self, places: Sequence[Place]) -> None:
        pass

    def rewind(self, offsets: Mapping[Place, Offset]) -> list[Output]:
        return []

    def due_outputs(self, records: Sequence[Message]) -> list[Output] | None:
        return None

    def process(self, records: Sequence[Message], offsets_to_commit: OffsetsToCommit) -> Processed:
        outputs: list[Output] = []
        num_read = Counter(map(_topic, records))
        for topic, rate in self._rates.items():
            self._due[topic] += rate * (num_read[SOURCE_OF[topic]] if topic in SOURCE_OF else len(records))
            number = int(self._due[topic])
            self._due[topic] -= number
            outputs += itertools.islice(self._outputs[topic], number)
        return Processed(outputs, len(records))

    def on_committed(self, last_written: Mapping[Place, Offset]) -> None:
        pass


class Feed:
    """Sends events that are the same in every run."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._producer = Producer(producer_config(kafka, **{"queue.buffering.max.messages": 1_000_000}))
        self._random = random.Random(7)
        self._now = datetime.now(UTC) - timedelta(days=1)

    def posts(self) -> Iterator[Event]:
        for number in range(POSTS):
            author = f"member-{self._random.randrange(MEMBERS)}"
            yield PostCreated(post_id=f"post-{number}", author_id=author, text=TEXT, created_at=self._tick())

    def actions(self, number: int) -> Iterator[Event]:
        for _ in range(number):
            yield Activity(
                member_id=f"member-{self._random.randrange(MEMBERS)}",
                post_id=f"post-{self._random.randrange(POSTS)}",
                action=self._random.choice(ACTIONS),
                at=self._tick(),
            )

    def send(self, events: Iterator[Event]) -> None:
        for event in events:
            self._producer.produce(event_topic(event), msgspec.json.encode(event), event_key(event))
            self._producer.poll(0)
        assert self._producer.flush(60) == 0

    def _tick(self) -> datetime:
        self._now += timedelta(milliseconds=10)
        return self._now


def _run(kafka: KafkaSettings, processor: Processor, settings: ContextsSettings) -> Cost:
    """What it takes from the first commit until no record is left to read."""
    loop = TransactionalLoop(
        kafka,
        processor,
        group=stages.CONTEXTS.group,
        topics=stages.CONTEXTS.topics,
        transactional_id="benchmark",
        batch_records=lambda: settings.batch_records,
        interval_s=settings.interval_s,
        reported_topics=frozenset(topics.context_names().changelogs),
    )
    stop = threading.Event()
    worker = threading.Thread(target=loop.run, args=(stop,))
    progress = _progress(kafka)
    before, _ = progress()
    worker.start()
    try:
        _until(lambda: progress()[0] > before, worker)
        started_at, cpu_before = time.perf_counter(), time.process_time()
        _until(lambda: progress()[1] == 0, worker)
        return Cost(time.perf_counter() - started_at, time.process_time() - cpu_before)
    finally:
        stop.set()
        worker.join()


def _progress(kafka: KafkaSettings) -> Callable[[], tuple[int, int]]:
    """Gives the sum of all committed offsets, and the number of records left."""
    reader = OffsetReader(kafka)
    places = reader.places(stages.CONTEXTS.topics)

    def read() -> tuple[int, int]:
        committed = sum(offset or 0 for offset in reader.committed(topics.CONTEXTS_GROUP, places).values())
        return committed, sum(reader.ends(places).values()) - committed

    return read


def _until(condition: Callable[[], bool], worker: threading.Thread) -> None:
    while not condition():
        if not worker.is_alive():
            raise SystemExit("the worker has ended; its error is above")
        time.sleep(0.1)


def _delete_topics(kafka: KafkaSettings) -> None:
    client = admin(kafka)
    for deleted in client.delete_consumer_groups([topics.CONTEXTS_GROUP]).values():
        deleted.result(30)
    names = [spec.name for spec in topics.core_topics()]
    for deleted in client.delete_topics(names).values():
        deleted.result(30)
    while set(names) & set(client.list_topics(timeout=10).topics):
        time.sleep(0.1)


@contextmanager
def _broker(folder: Path) -> Iterator[KafkaSettings]:
    broker = EmbeddedBroker(folder)
    broker.start()
    try:
        yield KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    finally:
        broker.stop()


def _topic(record: Message) -> str:
    return record.topic() or ""


if __name__ == "__main__":
    raise SystemExit(main())
