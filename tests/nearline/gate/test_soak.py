"""The check that a generation keeps up with live events: by looks that a test gives, and by groups on a real broker."""

import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from nearline.gate.soak import Look, ages, soak
from schemas import topics
from schemas.ids import Generation
from schemas.stages import encode_reads, index_reads
from streams.kafka.offsets import OffsetReader
from streams.kafka.topics import ensure_topics
from streams.settings import KafkaSettings
from tests.kit.data.embeddings import GENERATION
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.groups import commit_all
from tests.kit.kafka.topics import produce

BOUND_S = 2.0
BESIDE = Generation("beside-1")


class Looks:
    """Each look takes a second by the clock of the test; the last one is given again and again."""

    def __init__(self, *looks: Look) -> None:
        self._looks: Iterator[Look] = iter(looks)
        self._last = looks[-1]
        self.now_s = 0.0

    def __call__(self) -> Look:
        self.now_s += 1
        return next(self._looks, self._last)


def _soaked(*looks: Look) -> tuple[bool, float | None, str]:
    given = Looks(*looks)
    figure = soak(given, 2.5, BOUND_S, lambda: given.now_s)
    return figure.holds, figure.figure, figure.note


def test_a_place_that_lags_fails() -> None:
    holds, worst_s, note = _soaked(Look(0.5, 0.5, 1), Look(0.5, 7.0, 9), Look(0.5, 0.1, 1))
    assert (holds, worst_s) == (False, 7.0)
    assert "its place does not keep up" in note


def test_as_good_as_the_serving_one_is_good_enough() -> None:
    assert _soaked(Look(9.0, 0.5, 1), Look(0.5, 8.5, 9))[:2] == (True, 8.5)


def test_what_is_younger_than_the_bound_of_live_events_is_no_lag() -> None:
    assert _soaked(Look(0.0, 1.9, 1))[:2] == (True, 1.9)


def test_that_nothing_came_in_is_said() -> None:
    holds, worst_s, note = _soaked(Look(0.0, 0.0, 0))
    assert (holds, worst_s) == (True, 0.0)
    assert "nothing came in meanwhile" in note


def test_where_nobody_can_say_it_does_not_hold() -> None:
    holds, worst_s, note = _soaked(Look(0.1, None, 0))
    assert (holds, worst_s) == (False, None)
    assert note.startswith("not measured: only 0 of 3 times")


@pytest.mark.broker
def test_the_ages_of_a_place_that_reads_and_of_one_that_does_not(
    clean_topics: RunningBroker, kafka: KafkaSettings
) -> None:
    minute_ago_ms = int((time.time() - 60) * 1000)
    with closing(OffsetReader(kafka)) as reader:
        produce(kafka, topics.POST_CONTEXTS, 0, 3, minute_ago_ms)
        assert ages(reader, GENERATION, BESIDE).beside_s is None, "it has no topics"
        ensure_topics(kafka, topics.generation_topics(BESIDE))
        for read in (encode_reads(GENERATION), index_reads(GENERATION), index_reads(BESIDE)):
            commit_all(clean_topics, kafka, read.group, *read.topics)
        look = ages(reader, GENERATION, BESIDE)
    assert (look.serving_s, look.num_records) == (0.0, 3)
    assert look.beside_s is not None
    assert look.beside_s >= 60
