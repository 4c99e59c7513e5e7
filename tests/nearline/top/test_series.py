"""What `nearline top` takes from the monitor's figures."""

from prometheus_client.parser import text_string_to_metric_families

from nearline.top.series import NO_RATES, Series, rates_between, series_of

TEXT = """\
kafka_topic_partition_current_offset{topic="posts",partition="0"} 100.0
kafka_topic_partition_current_offset{topic="posts",partition="1"} 50.0
kafka_consumergroup_lag{consumergroup="contexts",topic="posts",partition="0"} 7.0
kafka_consumergroup_lag{consumergroup="contexts",topic="posts",partition="1"} 1.0
nearline_dead_letters{stage="encode",cause="too long"} 3.0
nearline_process_up{process="serve"} 1.0
"""
BEFORE = Series(10.0, {"posts": 100.0, "members": 5.0}, {("contexts", "posts"): 20.0}, {})


def test_partitions_are_added_up() -> None:
    assert series_of(text_string_to_metric_families(TEXT), 1.0) == Series(
        1.0, {"posts": 150.0}, {("contexts", "posts"): 8.0}, {("encode", "too long"): 3}
    )


def test_rates_are_what_came_and_what_was_done() -> None:
    now = Series(12.0, {"posts": 160.0, "members": 5.0}, {("contexts", "posts"): 10.0}, {})
    rates = rates_between(BEFORE, now)
    assert rates.came == {"posts": 30.0, "members": 0.0}
    assert rates.done == {("contexts", "posts"): 35.0}


def test_what_is_new_or_was_made_anew_has_no_rate() -> None:
    now = Series(12.0, {"posts": 3.0, "lists": 9.0}, {("contexts", "posts"): 3.0, ("trending", "lists"): 1.0}, {})
    assert rates_between(BEFORE, now) == ({}, {})
    assert rates_between(BEFORE, BEFORE) == NO_RATES, "no time has passed"
