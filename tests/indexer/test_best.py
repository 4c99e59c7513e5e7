"""The one order of hits: the highest score first, and of equal scores the lowest id."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.best import best_k

FEW_SCORES = st.sampled_from([-1.0, -0.0, 0.0, 0.25, 0.5])
ROWS = st.lists(st.tuples(FEW_SCORES, st.text(alphabet="ab", max_size=3)), max_size=12)


@given(ROWS, st.integers(1, 14))
def test_the_best_come_first_and_equal_scores_by_id(rows: list[tuple[float, str]], k: int) -> None:
    scores = np.array([score for score, _ in rows], np.float32)
    ids = [post_id for _, post_id in rows]
    expected = sorted((-score, post_id) for score, post_id in rows)[:k]
    assert [(-scores[row], ids[row]) for row in best_k(scores, k, ids)] == expected


@pytest.mark.parametrize("k", [1, 3, 9])
def test_without_ids_equal_scores_keep_their_order(k: int) -> None:
    scores = np.array([0.5, 1.0, 0.5, 0.5, 1.0], np.float32)
    assert best_k(scores, k).tolist() == [1, 4, 0, 2, 3][:k]
