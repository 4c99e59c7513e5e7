"""The member form `mean`: which texts a member's vector is the mean of, and with which weights.

Owns the choice of the texts, their weights and the mean. Knows no model: others encode the texts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from encoders.package.manifest import MeanForm, MemberTemplate
from encoders.prompt.prompts import age_s, profile_text
from schemas.contexts import HistoryEntry, MemberContext
from schemas.embeddings import Vector
from schemas.ids import Micros


class WeightedText(NamedTuple):
    text: str
    weight: float


def weighted_texts(form: MeanForm, template: MemberTemplate, context: MemberContext) -> list[WeightedText]:
    """The member's vector is the weighted mean of these texts' vectors. Empty where there is nothing to encode."""
    if context.deleted:
        return []
    texts = [WeightedText(profile_text(template, context), form.profile_weight)]
    texts += [
        WeightedText(entry.text, _entry_weight(form, entry, context.as_of_us))
        for entry in context.history[-form.max_entries :]
    ]
    return [weighted for weighted in texts if weighted.text.strip() and weighted.weight > 0]


def weighted_mean(vectors: Sequence[Vector], weights: Sequence[float]) -> Vector | None:
    """A vector of length one; None when the vectors cancel each other out."""
    mean = np.asarray(weights, dtype=np.float64) @ np.stack(vectors).astype(np.float64)
    length = float(np.linalg.norm(mean))
    return (mean / length).astype(np.float32) if length > 1e-9 * sum(weights) else None


def _entry_weight(form: MeanForm, entry: HistoryEntry, as_of_us: Micros) -> float:
    weight = form.action_weights.get(entry.action, 1.0)
    if form.half_life_s is not None:
        weight *= 0.5 ** (age_s(entry.at_us, as_of_us) / form.half_life_s)
    return weight
