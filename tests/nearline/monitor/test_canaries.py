"""Canaries: sent, found, deleted, gone; and what is said where one of these does not happen."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from nearline.monitor.canaries import FOREIGN_S, LOST_S, Canaries, Found
from nearline.monitor.canary_metrics import CanaryMetrics
from nearline.monitor.judgement import judge_canaries
from retriever.errors import RetrieverUnavailable
from schemas.canaries import canary_id
from schemas.events import PostCreated, PostDeleted, event_order, is_canary, parse_event
from schemas.ids import Generation, Micros, Partition, PostId
from schemas.times import to_micros
from streams.errors import KafkaUnavailable

A, B = Generation("a-1"), Generation("b-2")
IDS = [(canary_id("node", 0), Partition(0)), (canary_id("node", 1), Partition(1))]
EVERY_S = 10.0
START_US = 1_700_000_000_000_000


class Pipeline:
    """Both ends of a pipeline without a middle: what is sent is found `delay` looks later, by the rule of the rows."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.rows: dict[str, Any] = {}
        self.sent: list[Any] = []
        self.broken_send = False
        self.silent: set[Generation] = set()
        self.partial: set[Generation] = set()
        self.hides_new: set[Generation] = set()
        self.hides_deletes: set[Generation] = set()
        self.seen: dict[Generation, dict[str, Micros]] = {A: {}, B: {}}

    def send(self, post_id: PostId, event: bytes) -> None:
        if self.broken_send:
            raise KafkaUnavailable("the broker is away for this test")
        decoded = parse_event(event)
        assert is_canary(decoded)
        order = event_order(decoded, event)
        if post_id in self.rows and order <= self.rows[post_id]:
            return
        self.rows[post_id] = order
        self.sent.append(decoded)
        for generation, posts in self.seen.items():
            if isinstance(decoded, PostCreated) and generation not in self.hides_new:
                posts[post_id] = to_micros(decoded.created_at)
            elif isinstance(decoded, PostDeleted) and generation not in self.hides_deletes:
                posts.pop(post_id, None)

    def find(self, generation: Generation) -> Found:
        if generation in self.silent:
            raise RetrieverUnavailable("the generation is silent for this test")
        return Found(dict(self.seen[generation]), generation not in self.partial)

    @property
    def kinds(self) -> list[str]:
        return ["sent" if isinstance(event, PostCreated) else "deleted" for event in self.sent]


class Watched:
    def __init__(self, pipeline: Pipeline, ids: list[tuple[PostId, Partition]] = IDS) -> None:
        self.pipeline = pipeline
        self.live = [A]
        self.waits_s = 0.0
        self.registry = CollectorRegistry()
        self.canaries = Canaries(
            pipeline,
            CanaryMetrics(self.registry, self.clock),
            ids,
            lambda: self.live,
            lambda _, __: self.waits_s,
            every_s=EVERY_S,
            clock=self.clock,
            wall_us=lambda: Micros(START_US + int(pipeline.now_s * 1e6)),
        )

    def clock(self) -> float:
        return self.pipeline.now_s

    def run(self, seconds: float) -> None:
        until_s = self.pipeline.now_s + seconds
        while self.pipeline.now_s < until_s:
            self.canaries.step()
            self.pipeline.now_s += 1.0

    def series(self, start: str) -> dict[str, float]:
        lines = generate_latest(self.registry).decode().splitlines()
        named = (line.rpartition(" ") for line in lines if line.startswith(start))
        return {name.removeprefix(start): float(value) for name, _, value in named}

    def outcomes(self) -> dict[str, float]:
        return self.series("nearline_canaries_total")

    def sentences(self) -> list[str]:
        troubles = list(self.canaries.troubles.values())
        return [verdict.sentence for verdict in judge_canaries(troubles, self.clock(), EVERY_S)]


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline()


@pytest.fixture
def watched(pipeline: Pipeline) -> Watched:
    return Watched(pipeline)


def test_each_is_sent_found_deleted_and_gone_in_every_generation(pipeline: Pipeline, watched: Watched) -> None:
    watched.live = [A, B]
    watched.run(40)
    assert pipeline.kinds == ["sent", "deleted"] * 4
    assert [event.post_id for event in pipeline.sent[::2]] == [IDS[0][0], IDS[1][0]] * 2, "each partition in turn"
    assert pipeline.seen == {A: {}, B: {}}
    assert watched.outcomes() == {f'{{generation="{each}",outcome="passed"}}': 4 for each in (A, B)}
    assert watched.series("nearline_canary_gone_seconds_count") == {f'{{generation="{each}"}}': 4 for each in (A, B)}
    ages = watched.series("nearline_canary_newest_success_age_seconds")
    assert set(ages) == {f'{{generation="{A}"}}', f'{{generation="{B}"}}'}
    assert max(ages.values()) < EVERY_S
    assert watched.sentences() == []


def test_what_was_seen_of_a_generation_that_has_gone_is_forgotten(pipeline: Pipeline, watched: Watched) -> None:
    pipeline.hides_new = {B}
    watched.live = [A, B]
    watched.run(LOST_S + 5)
    assert B in watched.canaries.troubles
    watched.live = [A]
    watched.run(2 * EVERY_S)
    assert B not in watched.canaries.troubles
    assert str(B) not in generate_latest(watched.registry).decode()


def test_one_that_is_never_found_is_lost_and_named_until_one_is_found(pipeline: Pipeline, watched: Watched) -> None:
    pipeline.hides_new = {A}
    watched.run(LOST_S)
    assert watched.sentences() == [], "it still has time"
    watched.run(4)
    (sentence,) = watched.sentences()
    assert sentence.startswith(f"canary of a-1 has been lost for 64 s: the post {IDS[0][0]} was sent")
    assert "new and changed posts may not be found; another one is sent every 10 s" in sentence
    assert watched.outcomes() == {f'{{generation="{A}",outcome="lost"}}': 1}
    assert pipeline.kinds[-2:] == ["deleted", "sent"], "it is deleted all the same, and another one is sent"
    watched.run(LOST_S + 2)
    assert watched.sentences()[0].startswith("canary of a-1 has been lost for 126 s"), "since the first one was sent"
    pipeline.hides_new = set()
    watched.run(LOST_S + EVERY_S)
    assert watched.sentences() == []


def test_one_that_stays_after_its_deletion_is_named(pipeline: Pipeline, watched: Watched) -> None:
    pipeline.hides_deletes = {A}
    watched.run(LOST_S + 5)
    (sentence,) = watched.sentences()
    assert "was deleted, every stage has read that, and it is still found; deleted posts may still be shown" in sentence
    assert watched.outcomes() == {f'{{generation="{A}",outcome="stayed"}}': 1}


@pytest.mark.parametrize("why", ["older records wait", "answers say that they are partial"])
def test_what_the_lag_or_the_answer_says_is_no_loss(pipeline: Pipeline, watched: Watched, why: str) -> None:
    pipeline.hides_new = {A}
    watched.run(1)
    if why == "older records wait":
        watched.waits_s = LOST_S
    else:
        pipeline.partial = {A}
    watched.run(LOST_S + 1)
    assert watched.outcomes() == {f'{{generation="{A}",outcome="late"}}': 1}
    assert watched.sentences() == []


def test_while_nobody_could_say_whether_one_is_there_none_is_sent(pipeline: Pipeline, watched: Watched) -> None:
    pipeline.silent = {A}
    watched.run(EVERY_S)
    pipeline.silent, pipeline.partial = set(), {A}
    watched.run(EVERY_S)
    assert pipeline.sent == []
    assert watched.series("nearline_canary_newest_success_age_seconds") == {f'{{generation="{A}"}}': 2 * EVERY_S}
    pipeline.partial = set()
    watched.run(EVERY_S)
    assert pipeline.kinds == ["sent", "deleted"]


def test_that_none_can_be_sent_is_said_once(pipeline: Pipeline, watched: Watched) -> None:
    pipeline.silent = {A}
    with capture_logs() as logs:
        watched.run(LOST_S)
        assert logs == [], "an instance may be starting"
        watched.run(5 * EVERY_S)
    assert [line["error"] for line in logs] == ["the generation is silent for this test"]


def test_a_retriever_that_falls_silent_meanwhile_proves_nothing(pipeline: Pipeline, watched: Watched) -> None:
    watched.run(1)
    pipeline.silent = {A}
    watched.run(LOST_S + 2)
    assert watched.outcomes() == {f'{{generation="{A}",outcome="unknown"}}': 1}
    assert watched.sentences() == []


def test_a_broker_that_is_away_is_waited_out(pipeline: Pipeline, watched: Watched) -> None:
    pipeline.broken_send = True
    watched.run(2 * EVERY_S)
    pipeline.broken_send = False
    watched.run(1)
    assert pipeline.kinds == ["sent"]
    pipeline.broken_send = True
    watched.run(5)
    pipeline.broken_send = False
    watched.run(5)
    assert pipeline.kinds[:2] == ["sent", "deleted"], "the deletion is sent again"


@given(st.lists(st.integers(0, 14), min_size=1, max_size=4))
def test_what_a_killed_monitor_leaves_is_deleted_by_the_next_one(killed_after: list[int]) -> None:
    pipeline = Pipeline()
    for seconds in killed_after:
        Watched(pipeline).run(seconds)
    watched = Watched(pipeline)
    watched.run(LOST_S)
    while watched.canaries.is_under_way:
        watched.run(1)
    assert pipeline.seen[A] == {}
    assert set(watched.outcomes()) == {f'{{generation="{A}",outcome="passed"}}'}


def test_several_monitors_leave_each_other_alone_but_not_what_is_old(pipeline: Pipeline) -> None:
    other = Watched(pipeline, [(canary_id("other", 0), Partition(0))])
    other.run(1)
    watched = Watched(pipeline)
    watched.run(3)
    assert canary_id("other", 0) in pipeline.seen[A], "its own monitor looks for it"
    pipeline.now_s += FOREIGN_S
    watched.run(EVERY_S)
    assert canary_id("other", 0) not in pipeline.seen[A], "its monitor is gone"


def test_a_clock_that_goes_back_loses_no_canary(pipeline: Pipeline, watched: Watched) -> None:
    watched.run(EVERY_S)
    hours_back: Callable[[], Micros] = lambda: Micros(START_US - 3_600_000_000)  # noqa: E731
    watched.canaries._wall_us = hours_back
    watched.run(3 * EVERY_S)
    assert pipeline.kinds == ["sent", "deleted"] * 4
