"""The loss: each post of a group is to be found by the mean of the group's others, among all posts of the batch.

Where several devices train, the batches of all of them are one batch; a group is of one device.
Shapes: B rows of this device's batch, C rows of all devices, H the model's size, D a dimension.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import all_gather, all_gather_padded, get_rank, get_world_size
from torch import Tensor, nn

from trainer.data.dataset import NOBODY
from trainer.model.false_negatives import Owned
from trainer.settings import TrainSettings

_BCE_BIAS: Final = -5.0
"""Most posts are nobody's: so the first steps do not only teach that."""


class LeaveOneOut(nn.Module):
    """InfoNCE or binary cross-entropy, as the mean over nested dimensions (Matryoshka, Kusupati et al. 2022)."""

    def __init__(
        self,
        model: SentenceTransformer,
        settings: TrainSettings,
        dimensions: Sequence[int],
        owned: Mapping[int, set[int]],
    ) -> None:
        """`owned`: of each owner all its posts, whether they are in the batch for it or not."""
        super().__init__()
        self.model = model
        self._owned = Owned(owned)
        self._temperature = settings.temperature
        self._binary = settings.loss == "bce"
        self._dimensions = tuple(dimensions)

    def forward(self, features: Sequence[dict[str, Any]], labels: Tensor) -> Tensor:
        """`labels`: the owner of each row."""
        (posts,) = features
        numbers_B = posts.pop("number")
        vectors_BH = self.model(posts)["sentence_embedding"]
        owned_BC = self._owned(labels, _everywhere(numbers_B[:, None]).squeeze(1))
        itself_BC = torch.zeros_like(owned_BC)
        itself_BC.diagonal(_first(len(labels), labels.device))[:] = True
        left_out_BC = owned_BC & ~itself_BC
        losses = [self._at(vectors_BH[:, :size], labels, itself_BC, left_out_BC) for size in self._dimensions]
        return torch.stack(losses).mean()

    def _at(self, vectors_BD: Tensor, owners: Tensor, itself_BC: Tensor, left_out_BC: Tensor) -> Tensor:
        vectors_BD = F.normalize(vectors_BD, dim=-1)
        same_BB = (owners[:, None] == owners[None, :]) & (owners != NOBODY)[:, None]
        asked = same_BB.sum(1) > 1
        others_BD = same_BB.to(vectors_BD.dtype) @ vectors_BD - vectors_BD
        scores_BC = F.normalize(others_BD, dim=-1) @ _everywhere(vectors_BD).T / self._temperature
        if self._binary:
            kept = ~left_out_BC & asked[:, None]
            loss = F.binary_cross_entropy_with_logits((scores_BC + _BCE_BIAS)[kept], itself_BC.float()[kept])
            return _share(loss, kept)
        scores_BC = scores_BC.masked_fill(left_out_BC, float("-inf"))
        return _share(F.cross_entropy(scores_BC[asked], itself_BC.int().argmax(1)[asked]), asked)


def _everywhere(rows_BX: Tensor) -> Tensor:
    """(C, X): those of all devices, the lower ranks' first. Gradients find their way back."""
    if get_world_size() == 1:
        return rows_BX
    mask = torch.ones(1, len(rows_BX), dtype=torch.bool, device=rows_BX.device)
    found, kept = all_gather_padded(rows_BX[None], mask, with_grad=rows_BX.requires_grad)
    return found[kept]


def _first(num_rows: int, device: torch.device) -> int:
    """Where this device's rows begin among those of all."""
    if get_world_size() == 1:
        return 0
    return int(all_gather(torch.tensor([num_rows], device=device))[: get_rank()].sum())


def _share(loss: Tensor, asked: Tensor) -> Tensor:
    """Gradients become the mean over devices, where there are several: so each counts by how much it asked."""
    if get_world_size() == 1:
        return loss
    counts = all_gather(asked.sum()[None])
    return loss * asked.sum() * len(counts) / counts.sum()
