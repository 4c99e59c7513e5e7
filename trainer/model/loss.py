"""The loss: each post of a group is to be found by the mean of the group's other posts, among all posts of the batch.

Where several devices train, all their batches together are one batch; a group lies on one device. Owns the formula.
Refuses to know how batches are drawn.

Shapes: B rows of this device's batch, C rows of all devices' batches, H the model's size, D a dimension.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from trainer.data.dataset import NOBODY
from trainer.model.devices import first_row, gather_rows, weighted_by_device
from trainer.model.false_negatives import OwnedPosts
from trainer.settings import TrainSettings

BCE_BIAS: Final = -5.0
"""Most pairs are negatives. Without a bias the first steps would teach nothing but that."""


class BatchLoss(nn.Module):
    """InfoNCE or binary cross-entropy over all posts of the batch, as the mean over nested dimensions (Matryoshka,
    Kusupati et al. 2022). Subclasses say who looks for which post."""

    def __init__(
        self,
        model: SentenceTransformer,
        settings: TrainSettings,
        dimensions: Sequence[int],
        owned: Mapping[int, set[int]],
    ) -> None:
        """`owned`: for each owner all its posts, also those that are not in the batch because of this owner. They never
        count as negatives of this owner."""
        super().__init__()
        self.model = model
        self._owned = OwnedPosts(owned)
        self._temperature = settings.temperature
        self._binary = settings.loss == "bce"
        self._dimensions = tuple(dimensions)

    def _vectors(self, features: dict[str, Any]) -> Tensor:
        """(N, H) of N texts, in fp32: where weights travel in bf16 between devices, the model gives bf16."""
        vectors_NH: Tensor = self.model(features)["sentence_embedding"]
        return vectors_NH.float()


class LeaveOneOut(BatchLoss):
    def forward(self, features: Sequence[dict[str, Any]], labels: Tensor) -> Tensor:
        """`labels`: the owner of each row."""
        (posts,) = features
        numbers_B = posts.pop("number")
        vectors_BH = self._vectors(posts)
        owned_BC = self._owned(labels, gather_rows(numbers_B[:, None]).squeeze(1))
        positive_BC = torch.zeros_like(owned_BC)  # a row's own post
        positive_BC.diagonal(first_row(len(labels), labels.device))[:] = True
        false_negative_BC = owned_BC & ~positive_BC
        losses = [self._loss(vectors_BH[:, :size], labels, positive_BC, false_negative_BC) for size in self._dimensions]
        return torch.stack(losses).mean()

    def _loss(self, vectors_BD: Tensor, owners_B: Tensor, positive_BC: Tensor, false_negative_BC: Tensor) -> Tensor:
        """At one dimension. Only rows whose owner has another row in the batch are queries."""
        vectors_BD = F.normalize(vectors_BD, dim=-1)
        same_owner_BB = (owners_B[:, None] == owners_B[None, :]) & (owners_B != NOBODY)[:, None]
        is_query_B = same_owner_BB.sum(1) > 1
        others_BD = same_owner_BB.to(vectors_BD.dtype) @ vectors_BD - vectors_BD
        scores_BC = F.normalize(others_BD, dim=-1) @ gather_rows(vectors_BD).T / self._temperature
        if self._binary:
            counts_BC = ~false_negative_BC & is_query_B[:, None]
            logits = (scores_BC + BCE_BIAS)[counts_BC]
            loss = F.binary_cross_entropy_with_logits(logits, positive_BC.float()[counts_BC])
            return weighted_by_device(loss, counts_BC)
        scores_BC = scores_BC.masked_fill(false_negative_BC, float("-inf"))
        loss = F.cross_entropy(scores_BC[is_query_B], positive_BC.int().argmax(1)[is_query_B])
        return weighted_by_device(loss, is_query_B)
