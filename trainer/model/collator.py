"""From the rows of a batch to what the model and the loss are given."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
import torch

from encoders.prompt.prompts import Prompt
from trainer.model.packed_llama import Features, pack_features


class Collator:
    """A post is encoded once, even where several rows of the batch are of it."""

    def __init__(
        self,
        prompts: Sequence[Prompt],
        features: Callable[[Sequence[Prompt]], Features] = pack_features,
        *,
        token_dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._prompts = prompts
        self._features = features
        self._dropout = token_dropout
        self._seed = seed
        self.valid_label_columns = ["label"]  # the trainer reads this attribute of its collators

    def __call__(self, rows: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        posts, index_of_row = np.unique([row["post"] for row in rows], return_inverse=True)
        features = self._features(self._with_dropout(posts))
        features["order"] = features["order"][torch.from_numpy(index_of_row)]
        return {
            **{f"post_{name}": value for name, value in features.items()},
            "post_number": torch.from_numpy(posts[index_of_row]),
            "label": torch.tensor([row["owner"] for row in rows]),
        }

    def _with_dropout(self, posts: Iterable[int]) -> list[Prompt]:
        """The random numbers depend on the seed and the batch alone, so a resumed training drops the same tokens."""
        prompts = [self._prompts[post] for post in posts]
        if not self._dropout:
            return prompts
        rng = np.random.default_rng([self._seed, *posts])
        return [prompt[:1] + _sample(prompt[1:], 1 - self._dropout, rng) for prompt in prompts]


def _sample(tokens: Prompt, share: float, rng: np.random.Generator) -> Prompt:
    return list(compress(tokens, rng.random(len(tokens)) < share))
