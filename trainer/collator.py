"""From the rows of a batch to what the model and the loss are given."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from encoders.prompts import Prompt
from trainer.model import Features, pack_features


class Collator:
    """Posts are encoded once, however many rows of the batch are theirs."""

    def __init__(
        self, prompts: Sequence[Prompt], features: Callable[[Sequence[Prompt]], Features] = pack_features
    ) -> None:
        self._prompts = prompts
        self._features = features
        self.valid_label_columns = ["label"]  # what the trainer asks its collators

    def __call__(self, rows: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        posts, place = np.unique([row["post"] for row in rows], return_inverse=True)
        features = self._features([self._prompts[post] for post in posts])
        features["order"] = features["order"][torch.from_numpy(place)]
        return {
            **{f"post_{name}": value for name, value in features.items()},
            "post_number": torch.from_numpy(posts[place]),
            "label": torch.tensor([row["owner"] for row in rows]),
        }
