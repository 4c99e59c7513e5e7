import pytest

from schemas.ids import Micros, Partition, PostId
from streams.settings import TrendingSettings
from streams.trending.scores import KEPT_PER_LISTED, WEIGHTS, TrendingScores

HOUR_US = 3_600_000_000
NOW = Micros(1_767_607_200_000_000)


def scores(size: int = 500) -> TrendingScores:
    return TrendingScores(Partition(3), TrendingSettings(size=size))


def at(hours: float) -> Micros:
    return Micros(NOW + int(hours * HOUR_US))


def listed(table: TrendingScores, now_us: Micros = NOW) -> dict[str, float]:
    return {entry.post_id: entry.score for entry in table.take_list(now_us).entries}


def test_actions_weigh_differently_and_add_up() -> None:
    table = scores()
    assert table.add(PostId("shared"), "share", NOW)
    table.add(PostId("viewed"), "view", NOW)
    table.add(PostId("viewed"), "view", NOW)
    assert listed(table) == {"shared": WEIGHTS["share"], "viewed": 2 * WEIGHTS["view"]}


def test_a_score_halves_every_half_life() -> None:
    table = scores()
    table.add(PostId("p"), "like", NOW)
    assert listed(table, at(2))["p"] == pytest.approx(WEIGHTS["like"] / 4)


def test_late_and_early_events_count_as_of_their_time() -> None:
    table = scores()
    table.add(PostId("late"), "like", NOW)
    table.add(PostId("early"), "like", at(-1))
    assert listed(table)["early"] == pytest.approx(WEIGHTS["like"] / 2)


def test_an_impression_changes_nothing() -> None:
    table = scores()
    assert not table.add(PostId("p"), "impression", NOW)
    assert not table.changed
    assert len(table) == 0


def test_a_hidden_post_is_not_listed_and_a_like_does_not_forget_it() -> None:
    table = scores()
    table.add(PostId("p"), "hide", NOW)
    assert listed(table) == {}
    table.add(PostId("p"), "like", NOW)
    assert listed(table) == {}


def test_the_list_is_best_first_and_bounded() -> None:
    table = scores(size=2)
    for post, action in (("b", "view"), ("a", "view"), ("c", "share")):
        table.add(PostId(post), action, NOW)  # type: ignore[arg-type]
    assert [entry.post_id for entry in table.take_list(NOW).entries] == ["c", "a"]


def test_memory_is_bounded_by_the_list() -> None:
    table = scores(size=1)
    for n in range(10 * KEPT_PER_LISTED):
        table.add(PostId(f"p{n}"), "view", at(n / 1000))
    table.take_list(NOW)
    assert len(table) == KEPT_PER_LISTED


def test_negligible_scores_are_forgotten() -> None:
    table = scores()
    table.add(PostId("p"), "view", at(-24))
    table.take_list(NOW)
    assert len(table) == 0


def test_a_loaded_list_goes_on_where_it_stood() -> None:
    first = scores()
    first.add(PostId("p"), "like", NOW)
    written = first.take_list(at(1))
    second = scores()
    second.load(written)
    assert not second.changed
    assert listed(second, at(1)) == pytest.approx({"p": WEIGHTS["like"] / 2})


def test_years_of_events_do_not_overflow() -> None:
    table = scores()
    table.add(PostId("first"), "like", NOW)
    for years in range(1, 4):
        table.add(PostId("p"), "like", at(years * 24 * 365))
    assert listed(table, at(3 * 24 * 365)) == pytest.approx({"p": WEIGHTS["like"]})


def test_a_list_taken_after_years_without_events_is_empty() -> None:
    table = scores()
    table.add(PostId("p"), "like", NOW)
    assert listed(table, at(24 * 365)) == {}
