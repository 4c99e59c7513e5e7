"""From the rows of a batch to what the model and the loss are given."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from encoders.prompts import Prompt
from trainer.dataset import NOBODY
from trainer.model import Features, pack_features


class Collator:
    """Posts are encoded once, however many rows of the batch are theirs."""

    def __init__(
        self,
        prompts: Sequence[Prompt],
        owned: Mapping[int, set[int]],
        features: Callable[[Sequence[Prompt]], Features] = pack_features,
    ) -> None:
        self._prompts = prompts
        self._owned = owned
        self._features = features
        self.valid_label_columns = ["label"]  # what the trainer asks its collators

    def __call__(self, rows: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        owners = np.array([row["owner"] for row in rows])
        posts, place = np.unique([row["post"] for row in rows], return_inverse=True)
        features = self._features([self._prompts[post] for post in posts])
        features["order"] = features["order"][torch.from_numpy(place)]
        return {
            **{f"post_{name}": value for name, value in features.items()},
            "post_not_negative": torch.from_numpy(self._not_negative(owners, posts, place)),
            "label": torch.from_numpy(owners),
        }

    def _not_negative(self, owners: Any, posts: Any, place: Any) -> Any:
        """(B, B): the row's owner has the column's post among its own, whether it is in the batch for that or not."""
        found = np.zeros((len(owners), len(posts)), dtype=bool)
        for owner in np.unique(owners[owners != NOBODY]).tolist():
            mine = self._owned[owner]
            found[owners == owner] = [post in mine for post in posts.tolist()]
        return found[:, place]
