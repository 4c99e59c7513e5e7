"""The hour of figures that the page draws."""

from nearline.page.history import HOUR_S, STEP_S, Fresh, History


def test_columns_have_a_value_for_each_time_and_none_where_it_was_not_known() -> None:
    history = History()
    history.add(100.0, {"a": 1.23456, "b": 2.0}, Fresh())
    history.add(106.0, {"a": 3.0}, Fresh())
    columns = history.columns()
    assert (columns.at_s, columns.series) == ([100, 106], {"a": [1.235, 3.0], "b": [2.0, None]})
    later = history.columns(100.0)
    assert (later.at_s, later.series) == ([106], {"a": [3.0]})
    assert history.columns(106.0).series == {}


def test_it_keeps_an_hour_whatever_the_clock_does() -> None:
    history = History()
    for step in range(2_000):
        history.add(step * STEP_S, {"a": float(step)}, Fresh(1))
    at_s = history.columns().at_s
    assert len(at_s) == HOUR_S / STEP_S
    assert at_s[-1] - at_s[0] <= HOUR_S
    assert history.fresh(HOUR_S).events == HOUR_S / STEP_S
    for _ in range(2_000):
        history.add(0.0, {}, Fresh())
    assert len(history.columns(-1.0).at_s) <= HOUR_S / STEP_S, "also if the clock was set back"


def test_it_keeps_so_many_series() -> None:
    history = History()
    history.add(0.0, {f"{number:03d}": 0.0 for number in range(1_000)}, Fresh())
    assert len(history.columns(-1.0).series) == 64


def test_it_adds_up_how_many_events_were_fresh() -> None:
    history = History()
    history.add(0.0, {}, Fresh(10, 5, 2, 1))
    history.add(400.0, {}, Fresh(10, 10, 2, 2))
    assert history.fresh(300) == Fresh(10, 10, 2, 2)
    assert history.fresh(HOUR_S) == Fresh(20, 15, 4, 3)
    assert History().fresh(HOUR_S) == Fresh()
