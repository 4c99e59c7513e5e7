"""The member form `mean`: which texts a member's vector is made of, and their weights.

Knows no model: it says what to encode and puts the vectors together.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from encoders.package.manifest import MeanForm, MemberTemplate
from encoders.prompt.prompts import age_s, profile_text
from schemas.contexts import HistoryEntry, MemberContext
from schemas.embeddings import Vector
from schemas.ids import Micros


class Part(NamedTuple):
    text: str
    weight: float


def parts(form: MeanForm, template: MemberTemplate, context: MemberContext) -> list[Part]:
    """What the member's vector is the weighted mean of; empty when there is nothing to encode."""
    found = [Part(profile_text(template, context), form.profile_weight)]
    found += [
        Part(entry.text, _weight(form, entry, context.as_of_us)) for entry in context.history[-form.max_entries :]
    ]
    return [part for part in found if part.text.strip() and part.weight > 0]


def weighted_mean(vectors: Sequence[Vector], weights: Sequence[float]) -> Vector | None:
    """Of length one; None when the vectors cancel each other out."""
    mean = np.asarray(weights, dtype=np.float64) @ np.stack(vectors).astype(np.float64)
    length = float(np.linalg.norm(mean))
    return (mean / length).astype(np.float32) if length > 1e-9 * sum(weights) else None


def _weight(form: MeanForm, entry: HistoryEntry, as_of_us: Micros) -> float:
    weight = form.action_weights.get(entry.action, 1.0)
    if form.half_life_s is not None:
        weight *= 0.5 ** (age_s(entry.at_us, as_of_us) / form.half_life_s)
    return weight
