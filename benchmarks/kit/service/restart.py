"""How long a retriever takes until its hot tier is ready again, with a snapshot and by reading the topic."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from confluent_kafka import Producer

from benchmarks.kit.children import child
from benchmarks.kit.table import Figure
from benchmarks.kit.vectors import draw, post
from nearline.broker.embedded import EmbeddedBroker
from schemas import topics
from schemas.embeddings import encode_embedding
from schemas.ids import Generation
from schemas.times import now_us
from streams.kafka.clients import producer_config
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings

GENERATION: Final = Generation("benchmark")
_MISSED: Final = 2_000
"""So many records come in while the retriever is away."""
_FLUSH_S: Final = 60.0


def restart(folder: Path, num_posts: int, dimension: int, rounds: int) -> list[Figure]:
    from_topic: list[float] = []
    from_snapshot: list[float] = []
    snapshot = folder / "hot"
    with _broker(folder / "kafka") as kafka:
        feed = _Feed(kafka, dimension)
        feed.send(num_posts)
        for _ in range(rounds):
            shutil.rmtree(snapshot, ignore_errors=True)
            from_topic.append(_seconds_to_ready(kafka, snapshot, feed.num_sent, dimension))
            feed.send(_MISSED)
            from_snapshot.append(_seconds_to_ready(kafka, snapshot, feed.num_sent, dimension))
    topic_s, snapshot_s = float(np.median(from_topic)), float(np.median(from_snapshot))
    return [
        Figure("restart: posts in the hot tier", feed.num_sent),
        Figure("restart: seconds to ready by reading the topic", topic_s),
        Figure("restart: seconds to ready with a snapshot", snapshot_s),
        Figure("restart: with a snapshot / by reading the topic", snapshot_s / topic_s, 0.2, "at_most"),
    ]


def _seconds_to_ready(kafka: KafkaSettings, snapshot: Path, num_posts: int, dimension: int) -> float:
    """From the moment at which the process has loaded its code until the feed has caught up. At its end the process
    writes a snapshot."""
    with child("benchmarks.kit.feed_process", kafka.bootstrap_servers, snapshot, num_posts, dimension) as feed:
        feed.hear()
        start = time.perf_counter()
        held = int(feed.ask("start"))
        took_s = time.perf_counter() - start
    if held != num_posts:
        raise RuntimeError(f"the hot tier holds {held} of {num_posts} posts")
    return took_s


class _Feed:
    """Sends the records that the encode stage would write."""

    def __init__(self, kafka: KafkaSettings, dimension: int) -> None:
        ensure_topics(kafka, [*topics.core_topics(), *topics.generation_topics(GENERATION)])
        self._producer = Producer(producer_config(kafka, **{"queue.buffering.max.messages": 100_000}))
        self._vectors = draw(4096, dimension)
        self.num_sent = 0

    def send(self, count: int) -> None:
        for number in range(self.num_sent, self.num_sent + count):
            record = post(number, self._vectors[number % len(self._vectors)], created_at_us=now_us())
            self._send(record.post_id, encode_embedding(record))
        if self._producer.flush(_FLUSH_S):
            raise RuntimeError("the broker did not take all records")
        self.num_sent += count

    def _send(self, key: str, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(topics.post_embeddings(GENERATION), value, key)
            except BufferError:
                self._producer.poll(0.1)
            else:
                return


@contextmanager
def _broker(folder: Path) -> Iterator[KafkaSettings]:
    broker = EmbeddedBroker(folder)
    broker.start()
    try:
        yield KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    finally:
        broker.stop()
