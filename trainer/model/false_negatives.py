"""Finds false negatives: posts of a batch that belong to a row's owner and must not count against it.

Works on whole batches, on the device of the loss. Shapes: B rows, C posts.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn


class OwnedPosts(nn.Module):
    """Which posts belong to which owner, as sorted keys of all pairs. NOBODY owns nothing."""

    def __init__(self, owned: Mapping[int, set[int]]) -> None:
        super().__init__()
        self._num_posts = 1 + max(max(posts) for posts in owned.values())
        keys = [owner * self._num_posts + np.fromiter(posts, np.int64, len(posts)) for owner, posts in owned.items()]
        self.keys: Tensor
        self.register_buffer("keys", torch.from_numpy(np.sort(np.concatenate(keys))))

    def forward(self, owners_B: Tensor, posts_C: Tensor) -> Tensor:
        """(B, C): True where the post belongs to the row's owner."""
        if self.keys.device != owners_B.device:  # where weights are divided, only these are put on their device
            self.keys = self.keys.to(owners_B.device)
        keys_BC = owners_B[:, None] * self._num_posts + posts_C[None, :]
        index_BC = torch.searchsorted(self.keys, keys_BC).clamp(max=len(self.keys) - 1)
        return self.keys[index_BC] == keys_BC
