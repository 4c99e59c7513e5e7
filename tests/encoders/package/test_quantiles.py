import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.package.quantiles import NUM_BOUNDARIES, check_table, percentile, quantile_table

NUMBERS = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=200)


def test_percentiles_run_from_1_to_100() -> None:
    table = [float(number) for number in range(1, 100)]
    assert [percentile(table, number) for number in (-5, 0.5, 1, 49.5, 98.9, 99, 1e9)] == [1, 1, 2, 50, 99, 100, 100]


@given(NUMBERS)
def test_a_table_of_a_sample_is_sound_and_orders_it(numbers: list[float]) -> None:
    table = quantile_table(numbers)
    check_table(table)
    percentiles = [percentile(table, number) for number in sorted(numbers)]
    assert percentiles == sorted(percentiles)
    assert (percentiles[0] >= 1, percentiles[-1]) == (True, NUM_BOUNDARIES + 1)


def test_a_table_of_even_numbers_spreads_them_evenly() -> None:
    table = quantile_table(range(10_000))
    assert [percentile(table, number) for number in (0, 5_000, 9_999)] == [1, 51, 100]


@pytest.mark.parametrize("numbers", [[], [float("nan")], [1.0, float("inf")]])
def test_no_table_of_nothing_or_of_what_is_no_number(numbers: list[float]) -> None:
    with pytest.raises(ValueError, match="quantile table"):
        quantile_table(numbers)


@pytest.mark.parametrize("table", [[1.0] * 98, [2.0, *[1.0] * 98], [float("nan")] * 99])
def test_a_wrong_table_is_refused(table: list[float]) -> None:
    with pytest.raises(ValueError, match="quantile table"):
        check_table(table)
