from hypothesis import given
from hypothesis import strategies as st

from contexts.id_log import IDS_IN_CHUNK, IdLog

ids = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=3)


@given(st.lists(ids, max_size=400), st.integers(0, 300))
def test_an_id_log_holds_the_newest_ids(appended: list[str], keep: int) -> None:
    log = IdLog()
    for entity_id in appended:
        log = log.append(entity_id, keep)
    distinct = list(dict.fromkeys(reversed(appended)))[::-1]
    newest = log.newest(keep)
    assert len(newest) == len(set(newest)) <= keep
    assert set(newest) <= set(appended)
    if len(distinct) <= keep and len(appended) <= keep:
        assert set(newest) == set(distinct)


def test_an_id_log_forgets_whole_chunks_and_never_what_it_should_keep() -> None:
    log = IdLog()
    for number in range(5_000):
        log = log.append(f"p{number}", 1000)
        if number % 97 == 0:
            assert log.newest(1000) == [f"p{n}" for n in range(max(0, number - 999), number + 1)]
    assert log.newest(1000) == [f"p{n}" for n in range(4000, 5000)]
    assert len(log.chunks) <= 1000 // IDS_IN_CHUNK + 2
    assert log.start > 0


def test_an_append_shares_all_chunks_but_the_last() -> None:
    log = IdLog()
    for number in range(3 * IDS_IN_CHUNK):
        log = log.append(str(number), 10_000)
    grown = log.append("one more", 10_000)
    assert all(a is b for a, b in zip(log.chunks, grown.chunks, strict=False))
    assert grown.append("one more", 10_000) is grown
