"""Which posts are whose: what is never a negative for a row. Asked of whole batches, on the device of the loss."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn


class Owned(nn.Module):
    """Sorted keys of all pairs of an owner and a post of its own. NOBODY owns nothing."""

    def __init__(self, owned: Mapping[int, set[int]]) -> None:
        super().__init__()
        self._span = 1 + max(max(posts) for posts in owned.values())
        keys = [owner * self._span + np.fromiter(posts, np.int64, len(posts)) for owner, posts in owned.items()]
        self.keys: Tensor
        self.register_buffer("keys", torch.from_numpy(np.sort(np.concatenate(keys))))

    def forward(self, owners_B: Tensor, posts_C: Tensor) -> Tensor:
        """(B, C): the row's owner has the post among its own."""
        wanted_BC = owners_B[:, None] * self._span + posts_C[None, :]
        place_BC = torch.searchsorted(self.keys, wanted_BC).clamp(max=len(self.keys) - 1)
        return self.keys[place_BC] == wanted_BC
