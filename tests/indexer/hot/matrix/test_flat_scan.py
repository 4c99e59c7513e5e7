"""The scan on the CPU gives exactly the best, whatever the masks, the batch and the guesses are."""

from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.hot.matrix import flat_scan
from indexer.hot.matrix.blocks import BLOCK, Blocks
from indexer.hot.matrix.flat_scan import Job, Scanner
from indexer.hot.matrix.top_k import Best, Mask
from indexer.hot.slots import Slots
from indexer.tiers import Scores
from schemas.embeddings import Vector
from tests.kit.data.embeddings import DIMENSION, vectors

NUM_ROWS: Final = BLOCK + 3000
ROWS: Final = vectors(NUM_ROWS)
QUERIES: Final = vectors(64, seed=8)
NOTHING: Final = np.empty(0, np.int64)


@pytest.fixture(scope="module")
def blocks() -> Blocks:
    return filled(ROWS)


def filled(rows: Vector) -> Blocks:
    blocks = Blocks(DIMENSION)
    blocks.reserve(len(rows))
    blocks.put(np.arange(len(rows)), rows)
    return blocks


def expected(vector: Vector, mask: Mask, excluded: Slots, k: int) -> Scores:
    scores = np.where(mask, ROWS @ vector, -np.inf)
    scores[excluded] = -np.inf
    best = np.sort(scores)[::-1][:k]
    return np.asarray(best[best > -np.inf])


def check(found: Best, vector: Vector, mask: Mask, excluded: Slots, k: int) -> None:
    np.testing.assert_allclose(found.scores, expected(vector, mask, excluded, k), atol=2e-6)
    np.testing.assert_allclose(ROWS[found.positions] @ vector, found.scores, atol=2e-6)
    assert len(set(found.positions.tolist())) == len(found.positions)
    assert mask[found.positions].all()
    assert not np.isin(found.positions, excluded).any()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("num_queries", [1, 2, 3, 8, 64])
def test_every_query_of_a_batch_gets_its_best(blocks: Blocks, threads: int, num_queries: int) -> None:
    masks = [np.ones(NUM_ROWS, np.bool_), np.random.default_rng(2).random(NUM_ROWS) < 0.3]
    mask_of = [query % 2 for query in range(num_queries)]
    ks = [1 + 700 * (query % 4) for query in range(num_queries)]
    rng = np.random.default_rng(3)
    excluded = [np.unique(rng.integers(0, NUM_ROWS, 5000 * (query % 3))) for query in range(num_queries)]
    job = Job(blocks, vectors=list(QUERIES[:num_queries]), ks=ks, excluded=excluded, masks=masks, mask_of=mask_of)
    (found,) = Scanner(threads).scan([job])
    for query, best in enumerate(found):
        check(best, QUERIES[query], masks[mask_of[query]], excluded[query], ks[query])


def test_rows_that_are_gathered(blocks: Blocks) -> None:
    rows = np.unique(np.random.default_rng(1).integers(0, NUM_ROWS, 20_000))
    excluded = np.arange(0, NUM_ROWS, 3)
    mask = np.zeros(NUM_ROWS, np.bool_)
    mask[rows] = True
    job = Job(
        blocks,
        vectors=[QUERIES[0], QUERIES[1]],
        ks=[500, 20_000],
        excluded=[excluded, NOTHING],
        masks=[np.ones(len(rows), np.bool_)],
        mask_of=[0, 0],
        rows=rows,
    )
    (found,) = Scanner(1).scan([job])
    for query, (slots, k) in enumerate(((excluded, 500), (NOTHING, 20_000))):
        best = Best(job.slots(found[query].positions), found[query].scores)
        check(best, QUERIES[query], mask, slots, k)


def test_a_guess_that_is_too_high_is_noticed(blocks: Blocks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat_scan, "guess_bounds", lambda *_: np.array([0.5, 0.99], np.float32))
    mask = np.ones(NUM_ROWS, np.bool_)
    job = Job(
        blocks,
        vectors=[QUERIES[0], QUERIES[1]],
        ks=[2000, 2000],
        excluded=[np.arange(100), NOTHING],
        masks=[mask],
        mask_of=[0, 0],
    )
    (found,) = Scanner(2).scan([job])
    check(found[0], QUERIES[0], mask, np.arange(100), 2000)
    check(found[1], QUERIES[1], mask, NOTHING, 2000)


def test_a_guess_is_seldom_too_high_and_leaves_few_candidates() -> None:
    """Also if the best rows all lie together, as posts of one subject of one day do."""
    rows = ROWS.copy()
    rows[:4000] = QUERIES[0] + 0.5 * rows[:4000]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    blocks, mask = filled(rows), np.ones(NUM_ROWS, np.bool_)
    job = Job(blocks, vectors=[*QUERIES], ks=[2000] * 64, excluded=[NOTHING] * 64, masks=[mask], mask_of=[0] * 64)
    bounds = job.guessed_bounds(Scanner(1)._sample)
    above = np.count_nonzero(rows @ QUERIES.T > bounds, axis=0)
    assert above.min() >= 2000
    assert above.max() < 3 * 2000


@settings(max_examples=60)
@given(
    data=st.data(),
    num_rows=st.integers(0, 40),
    ks=st.lists(st.integers(1, 50), min_size=1, max_size=5),
)
def test_few_rows_with_many_equal_scores(data: st.DataObject, num_rows: int, ks: list[int]) -> None:
    rows = vectors(4)[data.draw(st.lists(st.integers(0, 3), min_size=num_rows, max_size=num_rows))]
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=num_rows, max_size=num_rows)), np.bool_)
    excluded = [
        np.unique(np.array(data.draw(st.lists(st.integers(0, num_rows + 3), max_size=5)), np.int64)) for _ in ks
    ]
    job = Job(
        filled(rows), vectors=list(QUERIES[: len(ks)]), ks=ks, excluded=excluded, masks=[mask], mask_of=[0] * len(ks)
    )
    (found,) = Scanner(1).scan([job])
    for query, (k, slots) in enumerate(zip(ks, excluded, strict=True)):
        allowed = [row for row in range(num_rows) if mask[row] and row not in slots]
        best = sorted((float(rows[row] @ QUERIES[query]) for row in allowed), reverse=True)[:k]
        np.testing.assert_allclose(found[query].scores, best, atol=2e-6)
        assert set(found[query].positions.tolist()) <= set(allowed)
