import pytest
from hypothesis import given
from hypothesis import strategies as st

from contexts.history import ENTRIES_IN_CHUNK, History
from schemas.contexts import HistoryEntry
from schemas.ids import Micros, PostId

entries = st.builds(
    HistoryEntry,
    post_id=st.sampled_from(["a", "b", "c", "d"]).map(PostId),
    action=st.sampled_from(["like", "share"]),
    at_us=st.integers(0, 30).map(Micros),
    text=st.just("text"),
)


def entry(number: int, post: str | None = None) -> HistoryEntry:
    return HistoryEntry(PostId(post or f"p{number}"), "like", Micros(number), "text")


@given(st.lists(entries, max_size=60), st.integers(1, 12))
def test_a_history_is_the_newest_entries_in_order_whatever_the_order_of_arrival(
    added: list[HistoryEntry], keep: int
) -> None:
    history = History()
    for added_entry in added:
        history = history.add(added_entry, keep)
    distinct = {(e.at_us, e.post_id, e.action): e for e in added}
    assert history.entries() == [distinct[key] for key in sorted(distinct)][-keep:]
    assert all(len(chunk) <= ENTRIES_IN_CHUNK for chunk in history.chunks)


def test_a_history_changes_nothing_for_a_repeat_and_for_what_is_too_old() -> None:
    history = History()
    for number in range(10, 20):
        history = history.add(entry(number), 10)
    assert history.add(entry(12), 10) is history
    assert history.add(entry(3), 10) is history


def test_a_history_append_touches_the_last_chunk_only() -> None:
    history = History()
    for number in range(50):
        history = history.add(entry(number), 50)
    for number in range(50, 90):
        grown = history.add(entry(number), 50)
        was = dict(enumerate(history.chunks, history.start))
        now = dict(enumerate(grown.chunks, grown.start))
        assert [n for n, chunk in now.items() if chunk is not was.get(n)] == [max(now)]
        assert [e.at_us for e in grown.entries()] == list(range(number - 49, number + 1))
        history = grown


def test_a_post_is_taken_out_of_what_is_skipped_too() -> None:
    history = History()
    for number in range(12):
        history = history.add(entry(number), 10)
    assert history.skip
    assert entry(0) in history.chunks[0]
    without = history.without("p0")
    assert without.entries() == history.entries()
    assert all(entry(0) not in chunk for chunk in without.chunks)


@pytest.mark.parametrize("post", ["p3", "p9"])
def test_a_post_is_taken_out_of_a_history(post: str) -> None:
    history = History()
    for number in range(10):
        history = history.add(entry(number), 50)
    without = history.without(post)
    assert [e.post_id for e in without.entries()] == [f"p{n}" for n in range(10) if f"p{n}" != post]
    assert without.without(post) is without
