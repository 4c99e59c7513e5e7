"""What the records say together, and when they cannot all be true."""

import pytest

from schemas.generations import POINTER_KEY, Canary, Pointer, Record, encode_record, key_of
from schemas.ids import Generation, Offset
from streams.generations.state import Generations
from tests.kit.data.generations import AT, founded, generation_record, two_live

A, B, C = Generation("a-1"), Generation("b-2"), Generation("c-3")


def read(*records: Record) -> Generations:
    state = Generations()
    for offset, record in enumerate(records):
        state = state.with_message(key_of(record), encode_record(record), Offset(offset))
    return state


def test_an_empty_log_says_that_nothing_serves() -> None:
    state = Generations()
    assert (state.serving, state.kept, state.canary, state.live, state.contradiction()) == (None, None, None, [], None)


def test_the_newest_record_of_each_key_counts() -> None:
    state = read(generation_record("a-1"), Pointer(A), generation_record("b-2", "building", "green"))
    assert state == two_live("building")
    state = state.with_records([generation_record("b-2", "retired", None)])
    assert [record.id for record in state.live] == [A]
    assert (state.at("blue"), state.at("green")) == (generation_record("a-1"), None)


def test_it_names_who_serves_is_kept_and_is_the_canary() -> None:
    state = two_live("kept", canary=Canary(B, 0.05, AT))
    named = (state.serving, state.kept, state.canary)
    assert [record.id if record else None for record in named] == [A, B, B]
    assert state.contradiction() is None


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (read(generation_record("a-1")), "no pointer"),
        (read(Pointer(A)), "a-1 is serving, and by the records none"),
        (read(generation_record("a-1"), Pointer(B)), "b-2 is serving, and by the records a-1"),
        (two_live("serving"), "by the records a-1, b-2"),
        (read(*founded().records.values(), Pointer(A, kept=B)), "b-2 is kept, and by the records none"),
        (read(generation_record("b-2", "kept", "green"), generation_record("a-1"), Pointer(A)), "None is kept"),
        (two_live("ready", canary=Canary(A, 0.5, AT)), "the canary a-1 is serving"),
        (two_live("retired", canary=Canary(B, 0.5, AT)), "the canary b-2 is retired"),
        (two_live("ready", canary=Canary(C, 0.5, AT)), "the canary c-3 is unknown"),
        (founded().with_records([generation_record("b-2", "ready", "blue")]), "have not each a place"),
        (founded().with_records([generation_record("b-2", "ready", None)]), "have not each a place"),
        (two_live("ready").with_records([generation_record("c-3", "building", "green")]), "have not each a place"),
    ],
)
def test_records_that_cannot_all_be_true(state: Generations, words: str) -> None:
    assert words in (state.contradiction() or "")


def test_a_damaged_record_leaves_what_was_there_until_a_good_one_follows() -> None:
    state = founded().with_message(POINTER_KEY, b"???", Offset(7)).with_message(b"else", None, Offset(8))
    assert (state.records, state.pointer, state.contradiction()) == (founded().records, founded().pointer, None)
    assert [(damage.key, damage.offset) for damage in state.damages] == [(POINTER_KEY, 7), (b"else", 8)]
    assert "offset 7 of the topic generations is refused: not a record" in str(state.damages[0])
    state = state.with_message(POINTER_KEY, b"!", Offset(9))
    assert [damage.offset for damage in state.damages] == [8, 9]
    state = state.with_message(POINTER_KEY, encode_record(Pointer(A)), Offset(10))
    assert [damage.offset for damage in state.damages] == [8]
