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
MISSED: Final = 2_000
"""So many records come in while the retriever is away."""
_FLUSH_S: Final = 60.0


def restart(folder: Path, num_posts: int, dimension: int, rounds: int) -> list[Figure]:
    folder.mkdir()
    with _broker(folder / "kafka") as kafka:
        return restarts(kafka, folder / "data", num_posts, dimension, rounds)


def restarts(kafka: KafkaSettings, data_dir: Path, num_posts: int, dimension: int, rounds: int) -> list[Figure]:
    """With a broker that has no records of `GENERATION` yet."""
    from_topic: list[float] = []
    from_snapshot: list[float] = []
    records = _Records(kafka, dimension)
    records.send(num_posts)
    feeds = _Feeds(kafka, data_dir, num_posts + rounds * MISSED, dimension)
    for _ in range(rounds):
        feeds.forget()
        from_topic.append(feeds.seconds_to_ready(records.num_sent))
        records.send(MISSED)
        from_snapshot.append(feeds.seconds_to_ready(records.num_sent))
    topic_s, snapshot_s = float(np.median(from_topic)), float(np.median(from_snapshot))
    return [
        Figure("restart: posts in the hot tier", records.num_sent),
        Figure("restart: seconds to ready by reading the topic", topic_s),
        Figure("restart: seconds to ready with a snapshot", snapshot_s),
        Figure("restart: with a snapshot / by reading the topic", snapshot_s / topic_s, 0.2, "at_most"),
    ]


class _Feeds:
    """Starts hot feeds, one after the other, which share a data folder."""

    def __init__(self, kafka: KafkaSettings, data_dir: Path, capacity: int, dimension: int) -> None:
        self._data_dir = data_dir
        self._words = (kafka.bootstrap_servers, data_dir, capacity, dimension)

    def forget(self) -> None:
        """Removes the snapshot."""
        shutil.rmtree(self._data_dir, ignore_errors=True)

    def seconds_to_ready(self, num_posts: int) -> float:
        """From the moment at which a process has loaded its code until its hot tier holds all posts. Returns when the
        process has left a snapshot."""
        with child("benchmarks.kit.feed_process", *self._words) as feed:
            feed.hear()
            start = time.perf_counter()
            held = int(feed.ask("start"))
            took_s = time.perf_counter() - start
            feed.ask("save")
        if held != num_posts:
            raise RuntimeError(f"the hot tier holds {held} of {num_posts} posts")
        return took_s


class _Records:
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
    broker.start(dies_with_parent=True)
    try:
        yield KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    finally:
        broker.stop()
