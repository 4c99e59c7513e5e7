"""The loss of pairs: what looks for a post shall find it among all posts of the batch.

Where several devices train, all their batches together are one batch. Owns the formula. Refuses to know whether a
member looks or the posts of a group, and how batches are drawn.

Shapes: B pairs and K columns (posts that can be found) of this device's batch, C columns of all devices' batches,
N prompts of this device's batch, H the model's size, D a dimension.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.model.devices import first_row, gather_rows, weighted_by_device
from trainer.model.loss import BCE_BIAS, BatchLoss


class PairLoss(BatchLoss):
    def forward(self, features: Sequence[dict[str, Any]], labels: Tensor) -> Tensor:
        """`labels`: the owner of each pair. The features of `PairCollator` beside those of the model."""
        (prompts,) = features
        weights_BN, columns_K, numbers_K, target_B = (
            prompts.pop(name) for name in ("weights", "columns", "numbers", "target")
        )
        vectors_NH = self._vectors(prompts)
        owned_BC = self._owned(labels, gather_rows(numbers_K[:, None]).squeeze(1))
        target_B = target_B + first_row(len(numbers_K), labels.device)
        false_negative_BC = owned_BC.scatter(1, target_B[:, None], False)
        losses = [
            self._loss(vectors_NH[:, :size], weights_BN, columns_K, target_B, false_negative_BC)
            for size in self._dimensions
        ]
        return torch.stack(losses).mean()

    def _loss(
        self, vectors_ND: Tensor, weights_BN: Tensor, columns_K: Tensor, target_B: Tensor, false_negative_BC: Tensor
    ) -> Tensor:
        """At one dimension. What looks is the weighted mean of vectors of length one, as a member's vector is."""
        vectors_ND = F.normalize(vectors_ND, dim=-1)
        looking_BD = F.normalize(weights_BN @ vectors_ND, dim=-1)
        scores_BC = looking_BD @ gather_rows(vectors_ND[columns_K]).T / self._temperature
        if self._binary:
            counts_BC = ~false_negative_BC
            is_target_BC = torch.zeros_like(scores_BC).scatter(1, target_B[:, None], 1.0)
            logits = (scores_BC + BCE_BIAS)[counts_BC]
            loss = F.binary_cross_entropy_with_logits(logits, is_target_BC[counts_BC])
            return weighted_by_device(loss, counts_BC)
        loss = F.cross_entropy(scores_BC.masked_fill(false_negative_BC, float("-inf")), target_B)
        return weighted_by_device(loss, torch.ones_like(target_B))
