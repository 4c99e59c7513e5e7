import numpy as np
import pytest

from trainer.evaluation.ranking_metrics import interval, ndcg, ranks_of, recall, share_better


def test_recall_is_by_as_many_as_there_could_be() -> None:
    scores = np.array([[0.1, 0.9, 0.5, 0.7]])
    ranks = ranks_of(scores, [[1, 2, 0]])
    assert ranks[0].tolist() == [0, 2, 3]
    assert recall(ranks, 1).tolist() == [1.0]
    assert recall(ranks, 2).tolist() == [0.5]
    assert recall(ranks, 4).tolist() == [1.0]


def test_of_equal_scores_the_earlier_candidate_stands_higher() -> None:
    assert ranks_of(np.zeros((1, 5)), [[3, 0]])[0].tolist() == [3, 0]


def test_ndcg_is_one_where_all_targets_lead() -> None:
    assert ndcg(ranks_of(np.array([[3.0, 2.0, 1.0]]), [[1, 0]])).tolist() == [1.0]
    assert ndcg(ranks_of(np.array([[3.0, 2.0, 1.0]]), [[2]]))[0] == pytest.approx(0.5)


def test_the_interval_holds_the_mean_and_narrows_with_members() -> None:
    rng = np.random.default_rng(0)
    few, many = rng.random(20), rng.random(2_000)
    low, high = interval(few)
    assert low < few.mean() < high
    assert interval(many)[1] - interval(many)[0] < (high - low) / 5


def test_better_is_told_by_pairs_of_the_same_members() -> None:
    theirs = np.random.default_rng(0).random(100)
    assert share_better(theirs + 0.001, theirs) == 1.0
    assert share_better(theirs, theirs) == 0.0
    shuffled = np.random.default_rng(1).permutation(theirs)
    assert 0.2 < share_better(shuffled, theirs) < 0.8
