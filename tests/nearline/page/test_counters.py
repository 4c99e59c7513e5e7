"""What is made of the processes' counters: real metrics, as a scrape has them."""

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from indexer.freshness import FreshnessCounts
from indexer.freshness_metric import add_freshness, freshness_family
from nearline.page.counters import COUNTED, WANTED, Counters
from nearline.page.history import Fresh
from tests.kit.metric_names import defined_metrics


class Process:
    """One that counts contexts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.contexts = Counter("nearline_encode_contexts", "…", ["kind", "outcome"], registry=self.registry)

    def scraped(self) -> tuple[str, list[Metric]]:
        return "encode-blue-0", list(text_string_to_metric_families(generate_latest(self.registry).decode()))


def test_a_rate_is_counted_from_one_look_to_the_next() -> None:
    counters, process = Counters(60.0), Process()
    process.contexts.labels("post", "encoded").inc(1_000)
    assert counters.look(10.0, [process.scraped()]).per_s == {}, "nobody knows since when it counts"
    process.contexts.labels("post", "encoded").inc(20)
    process.contexts.labels("member", "encoded").inc(10)
    process.contexts.labels("post", "dead_letter").inc(5)
    assert counters.look(20.0, [process.scraped()]).per_s == {"encoded_contexts": 3.0}
    assert counters.look(30.0, []).per_s == {}, "it does not answer"
    process.contexts.labels("post", "encoded").inc(10)
    assert counters.look(40.0, [process.scraped()]).per_s == {"encoded_contexts": 1.0}


def test_a_process_that_was_started_again_counts_from_zero() -> None:
    counters, process = Counters(60.0), Process()
    process.contexts.labels("post", "encoded").inc(1_000)
    counters.look(10.0, [process.scraped()])
    again = Process()
    again.contexts.labels("post", "encoded").inc(50)
    assert counters.look(20.0, [again.scraped()]).per_s == {"encoded_contexts": 5.0}


def test_events_are_fresh_that_took_no_longer_than_promised() -> None:
    counters, hot, cold = Counters(60.0), FreshnessCounts(), FreshnessCounts()

    def scraped(*tiers: str) -> list[tuple[str, list[Metric]]]:
        family = freshness_family()
        for tier in tiers:
            add_freshness(family, tier, "a-1", (hot if tier == "hot" else cold).counts())
        return [("serve", [family])]

    hot.add("post", 1.0)
    assert counters.look(10.0, scraped("hot")).fresh == Fresh(), "of an hour that is not ours"
    for seconds in (0.5, 60.0, 61.0, 7200.0):
        hot.add("post", seconds)
    hot.add("delete", 70.0)
    hot.add("delete", 7.0)
    cold.add("post", 1.0)
    counted = counters.look(20.0, scraped("hot", "cold"))
    assert counted.fresh == Fresh(events=6, events_in_time=3, deletes=2, deletes_in_time=1)
    assert counted.per_s == {"indexed": 0.1}


def test_what_is_counted_there_is() -> None:
    metrics = defined_metrics()
    for name, labels in COUNTED.values():
        assert labels.keys() <= metrics[name], name
    assert set(WANTED) <= metrics.keys()
