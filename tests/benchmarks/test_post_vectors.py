"""How long after its post another team can read a vector, as `benchmarks.freshness` measures it, with a real broker."""

import time
from threading import Event

import pytest

from benchmarks.kit.post_vectors import post_vector_ages_s
from schemas.headers import Origin, with_origin
from schemas.topics import POST_VECTOR_SPECS, POST_VECTORS
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.topics import Sender

pytestmark = pytest.mark.broker

AN_HOUR_S = 3_600


@pytest.fixture
def kafka(clean_topics: RunningBroker) -> KafkaSettings:
    settings = KafkaSettings(bootstrap_servers=clean_topics.bootstrap_servers)
    ensure_topics(settings, POST_VECTOR_SPECS)
    return settings


def test_of_each_post_of_the_load_its_first_vector_counts(kafka: KafkaSettings) -> None:
    sender = Sender(kafka, transactional_id="post-vectors-test")
    now_ms = round(time.time() * 1_000)
    for hours, post_ids in ((2, ("load-1", "other-1")), (1, ("load-1", "load-2"))):
        headers = with_origin(Origin(now_ms - hours * AN_HOUR_S * 1_000))
        sender.send(POST_VECTORS, [(post_id, b"{}") for post_id in post_ids], headers)
    stop = Event()
    stop.set()  # so that a vector that is not read fails the test, and does not hold it up for ever
    ages_s = post_vector_ages_s(kafka, "load-", 2, stop)
    assert {post_id: int(age_s // AN_HOUR_S) for post_id, age_s in ages_s.items()} == {"load-1": 2, "load-2": 1}


def test_what_never_comes_is_not_waited_for(kafka: KafkaSettings) -> None:
    stop = Event()
    stop.set()
    assert post_vector_ages_s(kafka, "load-", 1, stop, patience_s=0.1) == {}
