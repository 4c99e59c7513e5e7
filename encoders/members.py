"""The member form `mean`: which texts a member's vector is made of, their weights, and the vectors kept for next time.

Knows no model: it says what to encode and puts the vectors together.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np

from encoders.manifest import MeanForm, MemberTemplate
from encoders.prompts import age_s, profile_text
from schemas.contexts import HistoryEntry, MemberContext
from schemas.embeddings import Vector
from schemas.ids import Micros

CACHED_TEXTS: Final = 50_000
"""Of some 200 characters and 128 numbers each: about 40 MB."""


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


class VectorCache:
    """The vectors of the texts used last. A vector depends on the text alone, so an edited post is another entry.

    Read by the thread that prepares, written by the one that runs the device.
    """

    def __init__(self, capacity: int = CACHED_TEXTS) -> None:
        self.hits = 0
        self.misses = 0
        self._capacity = capacity
        self._vectors: OrderedDict[str, Vector] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._vectors)

    def find(self, texts: Iterable[str]) -> dict[str, Vector]:
        """Those of the texts that are kept."""
        found = {}
        with self._lock:
            for text in texts:
                if (vector := self._vectors.get(text)) is not None:
                    self._vectors.move_to_end(text)
                    found[text] = vector
                    self.hits += 1
                else:
                    self.misses += 1
        return found

    def keep(self, text: str, vector: Vector) -> None:
        with self._lock:
            # A copy: a row would keep its whole batch alive.
            self._vectors[text] = vector.copy()
            self._vectors.move_to_end(text)
            while len(self._vectors) > self._capacity:
                self._vectors.popitem(last=False)
