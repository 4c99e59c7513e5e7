"""What the retriever tells Prometheus, over a real socket."""

import math
from collections.abc import Callable, Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from retriever.answer.exact_search import TierRecall
from retriever.answer.online_recall import RecallFigures
from retriever.feed.member_feed import MemberFeedFigures
from schemas.ids import Micros, Offset, Partition
from schemas.times import now_us
from tests.kit.data.embeddings import GENERATION, post_embedding
from tests.kit.retrievers import PARTITION, RetrieverSetup, Served, asking_member, scored_post


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    retriever = RetrieverSetup()
    retriever.in_cold(asking_member("m"), scored_post("a", 0.9))
    retriever.in_hot(scored_post("b", 0.8))
    with Served(retriever) as served:
        yield served


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, trust_env=False, timeout=20) as client:
        yield client


def ask(http: httpx.Client, **question: str) -> httpx.Response:
    return http.post("/v1/retrieve", json={"timeout_ms": 30_000, **question})


Number = Callable[..., float]
"""The value of a metric, by its name and its labels; the sum if there are several."""


@pytest.fixture
def number(http: httpx.Client) -> Number:
    def value_of(name: str, **labels: str) -> float:
        families = text_string_to_metric_families(http.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples]
        found = [sample for sample in samples if sample.name == name and labels.items() <= sample.labels.items()]
        # A counter with a label has no sample before it has counted something.
        return sum(sample.value for sample in found) if found or name.endswith("_total") else math.nan

    return value_of


def test_metrics_of_members(http: httpx.Client, served: Served, number: Number) -> None:
    memory, cold = ({"from": name, "generation": GENERATION} for name in ("memory", "cold"))
    name = "nearline_member_lookups_total"
    held, found, missed = number("nearline_held_members"), number(name, **memory), number(name, **cold)
    served.retriever.in_cold(asking_member("counted"))
    for _ in range(2):
        assert ask(http, member_id="counted").status_code == 200
    assert number("nearline_held_members") == held + 1
    assert (number(name, **cold), number(name, **memory)) == (missed + 1, found + 1)
    assert number("nearline_held_members_bytes", generation=GENERATION) > 0
    assert number("nearline_evicted_members_total", generation=GENERATION) == 0


def test_metrics_of_the_member_feed(served: Served, number: Number, monkeypatch: pytest.MonkeyPatch) -> None:
    (hot_feed,) = served.feed.figures()

    def says(positions: dict[Partition, Offset], records_left: int | None) -> None:
        members = MemberFeedFigures(positions, records_left, skipped_records=7)
        monkeypatch.setattr(served.feed, "figures", lambda: [hot_feed._replace(members=members)])

    says({}, None)
    assert math.isnan(number("nearline_member_feed_behind_records")), "nobody knows"
    says({Partition(3): Offset(10), Partition(4): Offset(0)}, 2)
    assert number("nearline_member_feed_behind_records", generation=GENERATION) == 2
    assert [number("nearline_member_feed_position", partition=name) for name in "34"] == [10, 0]
    assert number("nearline_member_skipped_records_total", generation=GENERATION) == 7


def test_metrics_count_answers_by_outcome(http: httpx.Client, served: Served, number: Number) -> None:
    whole = number("nearline_retrieve_answers_total", outcome="whole")
    assert ask(http, member_id="m").status_code == 200
    assert number("nearline_retrieve_answers_total", outcome="whole") == whole + 1
    assert number("nearline_retrieve_seconds_count", step="cold") >= 1
    assert number("nearline_candidates_total", tier="hot") >= 1
    assert number("nearline_hot_posts") == 1
    kept = number("nearline_cold_answers_total", **{"from": "kept"})
    assert ask(http, member_id="m").status_code == 200
    assert number("nearline_cold_answers_total", **{"from": "kept"}) == kept + 1
    assert number("nearline_kept_answers") >= 1
    assert number("nearline_kept_answers_bytes") > 0
    assert number("nearline_ready") == 1
    assert number("nearline_requests_in_flight") == number("nearline_waiting_requests") == 0
    assert number("process_resident_memory_bytes") > 0
    assert ask(http, member_id="nobody").status_code == 200
    assert number("nearline_answer_reasons_total", reason="member_unknown", generation=GENERATION) >= 1
    unavailable = number("nearline_retrieve_answers_total", outcome="unavailable")
    served.retriever.cold.fails = served.retriever.hot.fails = True
    try:
        assert ask(http, text="t").status_code == 503
    finally:
        served.retriever.cold.fails = served.retriever.hot.fails = False
    assert number("nearline_retrieve_answers_total", outcome="unavailable") == unavailable + 1


def test_metrics_of_deleted_posts_in_the_hot_tier(served: Served, number: Number) -> None:
    held = number("nearline_hot_tombstones", generation=GENERATION)
    served.retriever.in_hot(post_embedding("deleted", 2, deleted=True))
    assert number("nearline_hot_tombstones", generation=GENERATION) == held + 1


def test_metrics_of_where_the_tiers_are(served: Served, number: Number) -> None:
    """What decides whether an answer is whole."""
    served.retriever.under_test.tidy()
    places = {"partition": str(PARTITION), "generation": GENERATION}
    assert number("nearline_hot_floor", **places) == served.retriever.hot.floor()[PARTITION]
    assert number("nearline_cold_position", **places) == served.retriever.cold.position()[PARTITION]


def test_metrics_of_trending_lists(served: Served, number: Number, monkeypatch: pytest.MonkeyPatch) -> None:
    assert math.isnan(number("nearline_trending_age_seconds")), "there is no list yet"
    (figures,) = served.retriever.under_test.figures()
    ten_hours_ago = figures._replace(trending_at_us=Micros(now_us() - 36_000_000_000))
    monkeypatch.setattr(served.retriever.under_test, "figures", lambda: [ten_hours_ago])
    assert 36_000 <= number("nearline_trending_age_seconds", generation=GENERATION) < 39_600


def test_metrics_of_recall(served: Served, number: Number, monkeypatch: pytest.MonkeyPatch) -> None:
    (figures,) = served.retriever.under_test.figures()
    recall = RecallFigures(3, 0.5, {"cold": TierRecall(19, 20)})
    monkeypatch.setattr(served.retriever.under_test, "figures", lambda: [figures._replace(recall=recall)])
    assert number("nearline_recall_answers_total", generation=GENERATION) == 3
    assert number("nearline_recall_seconds_total", generation=GENERATION) == 0.5
    of_cold = {"tier": "cold", "generation": GENERATION}
    assert number("nearline_recall_found_candidates_total", **of_cold) == 19
    assert number("nearline_recall_expected_candidates_total", **of_cold) == 20
