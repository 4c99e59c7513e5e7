"""The loss of pairs against formulas by hand, and what the collator gives it."""

from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trainer.data.pair_batches import Column, Pair
from trainer.model.loss import LeaveOneOut
from trainer.model.pair_collator import PairCollator
from trainer.model.pair_loss import PairLoss
from trainer.settings import TrainSettings

PROMPTS = [np.array(ids, dtype=np.int32) for ids in ([1, ~20, ~21], [2, 7, ~22], [1, ~23], [1, ~24, ~25, ~26])]
PAIRS = [
    Pair(0, ((1, 1.0),), Column(10, 0), (Column(12, 2),)),
    Pair(1, ((0, 2.0), (2, 1.0)), Column(13, 3), ()),
    Pair(0, ((1, 1.0),), Column(12, 2), ()),
]
OWNED = {0: {10, 12}, 1: {10, 13}}
DIMENSIONS = (2, 4)


def batch_of(*pairs: Pair, **options: Any) -> dict[str, Any]:
    collator = PairCollator(pairs, PROMPTS, **options)
    return collator([{"pair": row} for row in range(len(pairs))])


def loss_of(batch: dict[str, Any], vectors: torch.Tensor, **settings: Any) -> torch.Tensor:
    """`vectors`: of the prompts of the batch, in the order of their numbers."""

    class FixedModel(torch.nn.Module):
        def forward(self, _: object) -> dict[str, torch.Tensor]:
            return {"sentence_embedding": vectors}

    loss = PairLoss(cast(Any, FixedModel()), TrainSettings(**settings), DIMENSIONS, OWNED)
    features = {name.removeprefix("post_"): value for name, value in batch.items() if name != "label"}
    result: torch.Tensor = loss([features], batch["label"])
    return result


@pytest.fixture
def vectors() -> torch.Tensor:
    return torch.randn(4, 4, generator=torch.Generator().manual_seed(0))


def test_each_prompt_and_each_column_is_in_a_batch_once() -> None:
    batch = batch_of(*PAIRS)
    assert sorted(length for of_pass in batch["post_lengths"] for length in of_pass) == [2, 3, 3, 4]
    assert torch.cat(batch["post_input_ids"]).sort().values.tolist() == [1, 1, 1, 2, 7, *range(20, 27)]
    assert batch["post_weights"].tolist() == [[0, 1, 0, 0], [2, 0, 1, 0], [0, 1, 0, 0]]
    assert batch["post_numbers"].tolist() == [10, 12, 13]
    assert batch["post_columns"].tolist() == [0, 2, 3]
    assert batch["post_target"].tolist() == [0, 2, 1]
    assert batch["label"].tolist() == [0, 1, 0]


def test_only_tokens_of_texts_are_dropped_and_by_seed_and_batch() -> None:
    long = [np.array([1, 2, *(~token for token in range(100, 300))], dtype=np.int32)]

    def seen(seed: int) -> list[int]:
        collator = PairCollator([Pair(0, ((0, 1.0),), Column(0, 0), ())], long, token_dropout=0.5, seed=seed)
        tokens: list[int] = torch.cat(collator([{"pair": 0}])["post_input_ids"]).tolist()
        return tokens

    once = seen(1)
    assert once[:2] == [1, 2]
    assert 70 < len(once) < 130
    assert min(once) >= 0
    assert once == seen(1) != seen(2)


def test_what_looks_finds_its_post_among_all_that_are_not_its_own(vectors: torch.Tensor) -> None:
    def at(size: int) -> torch.Tensor:
        unit = F.normalize(vectors[:, :size], dim=-1)
        first, second = unit[1], F.normalize(2 * unit[0] + unit[2], dim=0)
        losses = [
            -F.log_softmax(first @ unit[[0, 3]].T / 0.1, dim=0)[0],  # the post 12 is its own
            -F.log_softmax(second @ unit[[2, 3]].T / 0.1, dim=0)[1],  # the post 10 is its own
            -F.log_softmax(first @ unit[[2, 3]].T / 0.1, dim=0)[0],
        ]
        return torch.stack(losses).mean()

    expected = (at(2) + at(4)) / 2
    assert loss_of(batch_of(*PAIRS), vectors, temperature=0.1).item() == pytest.approx(expected.item(), abs=1e-5)


def test_cross_entropy_counts_each_pair_that_is_not_masked(vectors: torch.Tensor) -> None:
    def at(size: int) -> torch.Tensor:
        unit = F.normalize(vectors[:, :size], dim=-1)
        first, second = unit[1], F.normalize(2 * unit[0] + unit[2], dim=0)
        logits = torch.stack(
            [first @ unit[0], first @ unit[3], second @ unit[2], second @ unit[3], first @ unit[2], first @ unit[3]]
        )
        is_target = torch.tensor([1.0, 0, 0, 1, 1, 0])
        return F.binary_cross_entropy_with_logits(logits / 0.1 - 5, is_target)

    expected = (at(2) + at(4)) / 2
    found = loss_of(batch_of(*PAIRS), vectors, temperature=0.1, loss="bce")
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)


def test_a_group_that_looks_for_its_own_gives_the_loss_of_the_group(vectors: torch.Tensor) -> None:
    owned = {0: {0, 1}, 1: {2, 3}}
    pairs = [Pair(post // 2, ((post ^ 1, 1.0),), Column(post, post), ()) for post in range(4)]
    batch = batch_of(*pairs)
    settings = TrainSettings(temperature=0.1)

    class FixedModel(torch.nn.Module):
        def forward(self, _: object) -> dict[str, torch.Tensor]:
            return {"sentence_embedding": vectors}

    features = {name.removeprefix("post_"): value for name, value in batch.items() if name != "label"}
    ours = PairLoss(cast(Any, FixedModel()), settings, DIMENSIONS, owned)([features], batch["label"])
    group = LeaveOneOut(cast(Any, FixedModel()), settings, DIMENSIONS, owned)
    assert ours.item() == pytest.approx(group([{"number": torch.arange(4)}], batch["label"]).item(), abs=1e-5)


def test_gradients_reach_both_sides(vectors: torch.Tensor) -> None:
    vectors.requires_grad_(True)
    loss_of(batch_of(*PAIRS), vectors).backward()
    assert vectors.grad is not None
    assert (vectors.grad.abs().sum(1) > 0).all()


def test_of_vectors_in_bf16_the_loss_is_computed_in_fp32(vectors: torch.Tensor) -> None:
    """As a model gives them whose weights travel in bf16 between devices."""
    batch, half = batch_of(*PAIRS), vectors.bfloat16()
    loss = loss_of({**batch}, half)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, loss_of({**batch}, half.float()))
