from hypothesis import given
from hypothesis import strategies as st

from encoders.model.packing import pack

LENGTHS = st.lists(st.integers(1, 50), max_size=60)


@given(LENGTHS, st.integers(1, 120))
def test_every_prompt_is_in_one_batch_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(pack(lengths, budget))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert batch
        assert len(batch) == 1 or sum(lengths[index] for index in batch) <= budget


@given(LENGTHS, st.integers(1, 120))
def test_lengths_never_grow_from_prompt_to_prompt(lengths: list[int], budget: int) -> None:
    packed = [lengths[index] for batch in pack(lengths, budget) for index in batch]
    assert packed == sorted(lengths, reverse=True)
