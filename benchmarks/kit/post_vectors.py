"""Reads the topic `post-vectors` as another team does, and says how long after its post each vector came."""

import math
import time
from contextlib import closing
from threading import Event
from typing import Final

from schemas.headers import read_origin_ms
from schemas.topics import POST_VECTOR_SPECS, POST_VECTORS
from streams.kafka.clients import new_consumer
from streams.kafka.kafka_errors import translate
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings

_CONSUME_S: Final = 0.05
PATIENCE_S: Final = 60.0


def post_vector_ages_s(
    kafka: KafkaSettings, prefix: str, num_posts: int, stop: Event, patience_s: float = PATIENCE_S
) -> dict[str, float]:
    """By post id, of the posts whose ids begin with the prefix: the seconds from the Kafka timestamp of the event until
    the vector could be read. Returns when so many posts have one, or `patience_s` after `stop` is set. Raises
    StreamsError."""
    ensure_topics(kafka, POST_VECTOR_SPECS)  # where the encode stage has not made them yet, nobody could subscribe
    ages_s: dict[str, float] = {}
    give_up_s = math.inf
    with closing(new_consumer(kafka, "benchmark-post-vectors")) as consumer:
        consumer.subscribe([POST_VECTORS])
        while len(ages_s) < num_posts and time.monotonic() < give_up_s:
            for record in consumer.consume(1_000, _CONSUME_S):
                if error := record.error():
                    raise translate(error)
                post_id, origin_ms = (record.key() or b"").decode(), read_origin_ms(record)
                if post_id.startswith(prefix) and origin_ms is not None:
                    ages_s.setdefault(post_id, time.time() - origin_ms / 1_000)
            if stop.is_set():
                give_up_s = min(give_up_s, time.monotonic() + patience_s)
    return ages_s
