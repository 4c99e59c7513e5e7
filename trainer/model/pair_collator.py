"""From the pairs of a batch to what the model and the loss are given.

Shapes: B pairs, K columns (posts that can be found), N prompts.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from encoders.prompt.prompts import Prompt
from trainer.data.pair_batches import Pair
from trainer.data.rendering import MarkedIds, token_ids
from trainer.model.packed_llama import Features, pack_features


class PairCollator:
    """A prompt is encoded once, even where it is in several pairs of the batch."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        prompts: Sequence[MarkedIds],
        features: Callable[[Sequence[Prompt]], Features] = pack_features,
        *,
        token_dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._pairs = pairs
        self._prompts = prompts
        self._features = features
        self._dropout = token_dropout
        self._seed = seed
        self.valid_label_columns = ["label"]  # the trainer reads this attribute of its collators

    def __call__(self, rows: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        pairs = [self._pairs[row["pair"]] for row in rows]
        numbers = sorted(set[int]().union(*(pair.prompts for pair in pairs)))
        row_of = {number: row for row, number in enumerate(numbers)}
        columns = {
            column: at
            for at, column in enumerate(
                dict.fromkeys(column for pair in pairs for column in (pair.target, *pair.negatives))
            )
        }
        weights_BN = torch.zeros(len(pairs), len(numbers))
        for row, pair in enumerate(pairs):
            for number, weight in pair.parts:
                weights_BN[row, row_of[number]] += weight
        features: dict[str, Any] = {
            **self._features(self._with_dropout(numbers)),
            "weights": weights_BN,
            "columns": torch.tensor([row_of[column.prompt] for column in columns]),
            "numbers": torch.tensor([column.post for column in columns]),
            "target": torch.tensor([columns[pair.target] for pair in pairs]),
        }
        return {
            **{f"post_{name}": value for name, value in features.items()},
            "label": torch.tensor([pair.owner for pair in pairs]),
        }

    def _with_dropout(self, numbers: Sequence[int]) -> list[Prompt]:
        """The random numbers depend on the seed and the batch alone, so a resumed training drops the same tokens."""
        rng = np.random.default_rng([self._seed, *numbers])
        return [self._visible(self._prompts[number], rng).tolist() for number in numbers]

    def _visible(self, marked: MarkedIds, rng: np.random.Generator) -> MarkedIds:
        if self._dropout:
            marked = marked[(marked >= 0) | (rng.random(len(marked)) >= self._dropout)]
        return token_ids(marked)
