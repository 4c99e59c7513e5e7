from contexts.count_buckets import BUCKET_STARTS, bucket


def test_the_buckets_are_the_designs() -> None:
    assert BUCKET_STARTS[:10] == (0, 1, 2, 3, 5, 8, 12, 18, 27, 41)


def test_a_bucket_reaches_up_to_the_next_start() -> None:
    assert [bucket(count) for count in (0, 1, 2, 3, 4, 5, 7, 8, 11, 12, 17, 18)] == [0, 1, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7]
    assert bucket(10**15) == len(BUCKET_STARTS) - 1
