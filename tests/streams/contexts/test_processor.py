"""The context processor on real row stores, without a broker: the test gives records and confirms the commits."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from confluent_kafka import Message
from prometheus_client import CollectorRegistry

from contexts.settings import ContextRules
from schemas import topics
from schemas.hops import PostActivity, encode_hop
from schemas.ids import MemberId, Micros, Offset, Partition
from streams.contexts.metrics import ContextMetrics
from streams.contexts.processor import ContextProcessor
from streams.contexts.row_store import RowStore
from streams.kafka.partitions import partition_of
from streams.kafka.records import Output, Place
from streams.settings import KafkaSettings
from tests.kit.data.events import line, post_created

DAY_US = 24 * 3600 * 1_000_000
START_US = 1_780_000_000_000_000
ONLY = Partition(0)


class Worker:
    """One partition, and a clock that the test sets."""

    def __init__(self, processor: ContextProcessor) -> None:
        self.processor = processor
        self.now_us = START_US
        self._end = 0

    def take(self, *records: Message) -> list[Output]:
        """One transaction."""
        outputs = self.processor.process(records, lambda _: {}).outputs
        self._commit(outputs)
        return outputs

    def transactions_that_are_due(self, at_most: int = 5) -> list[list[Output]]:
        done: list[list[Output]] = []
        while len(done) < at_most and (outputs := self.processor.due_outputs([])) is not None:
            self._commit(outputs)
            done.append(outputs)
        return done

    def _commit(self, outputs: list[Output]) -> None:
        self._end += len(outputs)
        written = {output.topic for output in outputs if output.topic in topics.context_names().changelogs}
        self.processor.on_committed({Place(topic, ONLY): Offset(self._end) for topic in written})


@contextmanager
def worker(
    folder: Path, rules: ContextRules | None = None, metrics: ContextMetrics | None = None, partitions: int = 1
) -> Iterator[Worker]:
    """It owns the first of the partitions. Started again on the same folder it goes on with the same rows."""
    processor = ContextProcessor(
        KafkaSettings(partitions=partitions),
        rules or ContextRules(),
        folder,
        1000,
        lambda: Micros(started.now_us),
        metrics=metrics,
    )
    started = Worker(processor)
    posts, members = (RowStore(folder, Place(topic, ONLY), b"id") for topic in topics.context_names().changelogs)
    processor._posts.open(posts)
    processor._members.open(members)
    try:
        yield started
    finally:
        processor.on_revoked([posts.place])


def record(topic: str, key: str, value: bytes | None, **over: Any) -> Message:
    defaults = {"partition": ONLY, "offset": 0, "timestamp": (1, START_US // 1000)}
    return Message(topic=topic, key=key.encode(), value=value, **defaults | over)


def like(post_id: str, member_id: str = "m") -> Message:
    hop = PostActivity(MemberId(member_id), "like", Micros(START_US))
    return record(topics.ACTIVITY_BY_POST, post_id, encode_hop(hop))


def created(post_id: str) -> Message:
    at = datetime.fromtimestamp(START_US / 1_000_000, UTC)
    return record(topics.POSTS, post_id, line(post_created(post_id, at=at)))


def letters(transactions: list[list[Output]]) -> list[bytes | None]:
    return [output.key for outputs in transactions for output in outputs if output.topic == topics.DEAD_LETTERS]


def test_a_longer_time_to_wait_makes_no_transactions_without_progress(tmp_path: Path) -> None:
    """The cell that says when to look was written under the old setting."""
    with worker(tmp_path, ContextRules(waiting_s=86_400)) as before:
        before.take(like("p"))
    with worker(tmp_path, ContextRules(waiting_s=7 * 86_400)) as after:
        after.now_us += 2 * DAY_US
        assert after.transactions_that_are_due() == []
        after.now_us = START_US + 7 * DAY_US
        assert letters(after.transactions_that_are_due()) == [b"m"]
        assert after.transactions_that_are_due() == []


def test_a_shorter_time_to_wait_holds_for_what_waits_already(tmp_path: Path) -> None:
    with worker(tmp_path, ContextRules(waiting_s=7 * 86_400)) as before:
        before.take(like("p"))
    with worker(tmp_path, ContextRules(waiting_s=86_400)) as after:
        after.now_us += DAY_US
        assert letters(after.transactions_that_are_due()) == [b"m"]
        assert after.transactions_that_are_due() == []


def test_a_row_that_is_not_due_as_its_cell_says_is_looked_at_once(tmp_path: Path) -> None:
    """However the cell came to say so: looking at the row puts it right."""
    with worker(tmp_path) as wrong:
        wrong.take(like("p"))
        table = wrong.processor._posts[ONLY]
        for entity_id in ("p", "nobody"):
            table.due.set(entity_id, table.due.get("p")._replace(stored_us=Micros(1)))  # type: ignore[union-attr]
        assert [len(outputs) for outputs in wrong.transactions_that_are_due()] == [2]
        wrong.now_us += 7 * DAY_US
        assert letters(wrong.transactions_that_are_due()) == [b"m"]


def test_a_clock_that_steps_back_loses_no_waiting_action(tmp_path: Path) -> None:
    with worker(tmp_path) as running:
        running.take(like("p", "first"))
        running.now_us -= DAY_US
        running.take(like("p", "second"))
        running.now_us = START_US + 6 * DAY_US
        assert letters(running.transactions_that_are_due()) == [b"second"]
        running.now_us = START_US + 7 * DAY_US
        assert letters(running.transactions_that_are_due()) == [b"first"]
        running.take(created("p"))
        assert running.transactions_that_are_due() == []


def test_a_record_of_another_partition_goes_there_in_the_transaction_that_reads_it(tmp_path: Path) -> None:
    """Sent beside it, a crash between the two would lose it or leave it twice."""
    elsewhere = next(post_id for post_id in map(str, count()) if partition_of(post_id.encode(), 2) == 1)
    with worker(tmp_path, partitions=2) as running:
        (moved,) = running.take(created(elsewhere))
        assert (moved.topic, moved.key, moved.partition) == (topics.POSTS, elsewhere.encode(), 1)


def test_posts_and_members_share_one_budget_of_rows(tmp_path: Path) -> None:
    """Of the process, however many partitions it owns."""
    with worker(tmp_path) as running:
        tables = running.processor._posts, running.processor._members
        assert tables[0]._cache is tables[1]._cache


def test_metrics_say_how_large_the_tables_are(tmp_path: Path) -> None:
    registry = CollectorRegistry()

    def num_cells() -> float:
        return registry.get_sample_value("nearline_contexts_stored_cells", {"kind": "post"}) or 0.0

    metrics = ContextMetrics(registry)
    with worker(tmp_path, metrics=metrics) as running:
        running.take(*(created(f"p{number}") for number in range(300)))
        once = num_cells()
        assert 600 <= once <= 650, "each has a head and a body"
        for number in range(100):
            running.take(like("p0", f"m{number}"))
        running.processor._posts.compact_if_due(0)
        running.take()
        assert 600 <= num_cells() <= 650, "what was overwritten is gone"
        running.processor.on_revoked([Place(topics.POSTS, ONLY)])
        assert num_cells() == 0, "another worker has them"


def test_metrics_say_since_when_deleted_text_may_be_in_the_files(tmp_path: Path) -> None:
    registry = CollectorRegistry()

    def age_s() -> float:
        return registry.get_sample_value("nearline_contexts_compaction_age_seconds") or 0.0

    with worker(tmp_path, metrics=ContextMetrics(registry)) as running:
        assert age_s() < 3_600, "no partition is known"
        file, *_ = tmp_path.glob("*/last-shed")
        long_ago_s = time.time() - 36_000
        os.utime(file, (long_ago_s, long_ago_s))
        running.processor.compact_if_due(86_400)
        assert age_s() >= 36_000, "of the table that waits the longest"
        running.processor.compact_if_due(18_000)
        assert age_s() < 3_600


def test_metrics_say_what_became_of_the_records(tmp_path: Path) -> None:
    registry = CollectorRegistry()

    def value(name: str, **labels: str) -> float:
        return registry.get_sample_value(name, labels) or 0.0

    metrics = ContextMetrics(registry)
    with worker(tmp_path, metrics=metrics) as running:
        running.take(created("p"), created("p"), record(topics.POSTS, "p", b"{"))
        for number in range(3):
            running.take(like("p", f"m{number}"))
        assert value("nearline_contexts_delayed_publications", kind="post") == 1
        running.processor.on_revoked([Place(topics.POSTS, ONLY)])
        assert value("nearline_contexts_delayed_publications", kind="post") == 0, "they wait at another worker"
    with worker(tmp_path, metrics=metrics) as running:
        running.take()
        assert value("nearline_contexts_delayed_publications", kind="post") == 1
        running.now_us += DAY_US
        running.transactions_that_are_due()
        assert value("nearline_contexts_delayed_publications", kind="post") == 0

    assert value("nearline_contexts_records_total", topic=topics.POSTS) == 3
    assert value("nearline_contexts_records_total", topic=topics.ACTIVITY_BY_POST) == 3
    assert value("nearline_contexts_not_applied_total", cause="stale_post_event") == 1
    assert value("nearline_contexts_not_applied_total", cause="dead_letter") == 1
    assert value("nearline_contexts_published_total", kind="post", when="at_once") == 1
    assert value("nearline_contexts_published_total", kind="post", when="put_off") == 1, "its counts"
