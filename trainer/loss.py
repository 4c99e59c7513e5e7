"""The loss: each post of a group is to be found by the mean of the group's others, among all posts of the batch.

Shapes: B rows of the batch, H the model's size, D a dimension.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from trainer.dataset import NOBODY
from trainer.settings import TrainSettings

_BCE_BIAS: Final = -5.0
"""Most posts are nobody's: so the first steps do not only teach that."""


class LeaveOneOut(nn.Module):
    """InfoNCE or binary cross-entropy, as the mean over nested dimensions (Matryoshka, Kusupati et al. 2022)."""

    def __init__(self, model: SentenceTransformer, settings: TrainSettings, dimensions: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self._temperature = settings.temperature
        self._binary = settings.loss == "bce"
        self._dimensions = tuple(dimensions)

    def forward(self, features: Sequence[dict[str, Any]], labels: Tensor) -> Tensor:
        """`labels`: the owner of each row."""
        (posts,) = features
        not_negative_BB = posts.pop("not_negative")
        vectors_BH = self.model(posts)["sentence_embedding"]
        losses = [self._at(vectors_BH[:, :size], labels, not_negative_BB) for size in self._dimensions]
        return torch.stack(losses).mean()

    def _at(self, vectors_BD: Tensor, owners: Tensor, not_negative_BB: Tensor) -> Tensor:
        vectors_BD = F.normalize(vectors_BD, dim=-1)
        same_BB = (owners[:, None] == owners[None, :]) & (owners != NOBODY)[:, None]
        asked = same_BB.sum(1) > 1
        others_BD = same_BB.to(vectors_BD.dtype) @ vectors_BD - vectors_BD
        scores_BB = F.normalize(others_BD, dim=-1) @ vectors_BD.T / self._temperature
        itself_BB = torch.eye(len(owners), dtype=torch.bool, device=owners.device)
        left_out_BB = (same_BB | not_negative_BB) & ~itself_BB
        if self._binary:
            kept = ~left_out_BB & asked[:, None]
            return F.binary_cross_entropy_with_logits((scores_BB + _BCE_BIAS)[kept], itself_BB.float()[kept])
        scores_BB = scores_BB.masked_fill(left_out_BB, float("-inf"))
        return F.cross_entropy(scores_BB[asked], itself_BB.int().argmax(1)[asked])
