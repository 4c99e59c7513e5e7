"""Contexts that are ready for the device: their prompts without repeats, and where each context's vector comes from.

Needs neither a model nor a device. `encoders.encoder` fills it on the host and asks for the outcomes after the run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from encoders.errors import Outcome, Unencodable
from encoders.prompt.member_mean import WeightedText, weighted_mean
from encoders.prompt.prompts import Prompt
from encoders.vector_cache import Key
from schemas.embeddings import Vector

TextSource = int | Vector | Unencodable
"""Where the vector of one text comes from: its row in the run, the cached vector, or the reason why there is none."""


class MeanSource(NamedTuple):
    """A member's vector is the weighted mean of these texts' vectors."""

    texts: list[int | Vector]
    weights: list[float]


Source = TextSource | MeanSource | None
"""Where the vector of a context comes from; None where there is nothing to encode."""


@dataclass
class Prepared:
    prefix: Prompt
    """How all the prompts begin."""
    prompts: list[Prompt] = field(default_factory=list)
    """One row for each different prompt."""
    sources: list[Source] = field(default_factory=list)
    """For each context, in order."""
    cache_keys: dict[int, set[Key]] = field(default_factory=dict)
    """The keys under which a row's vector goes into a cache."""
    device_s: float = 0.0
    """How long the device worked on these prompts; set by the run."""
    _rows: dict[tuple[int, ...], int] = field(default_factory=dict)

    def add(self, prompt: Prompt | Unencodable) -> int | Unencodable:
        """Returns the prompt's row; a prompt that is there already keeps its first row."""
        if isinstance(prompt, Unencodable):
            return prompt
        row = self._rows.setdefault(tuple(prompt), len(self.prompts))
        if row == len(self.prompts):
            self.prompts.append(prompt)
        return row

    def outcomes(self, vectors: Sequence[Vector | Unencodable]) -> list[Outcome]:
        """One outcome for each context; `vectors` are those of the rows, after the run."""
        return [_outcome(source, vectors) for source in self.sources]


def mean_source(texts: Sequence[WeightedText], sources: dict[Key, TextSource]) -> MeanSource | Unencodable | None:
    """`sources` has the source of each text. One text that cannot be encoded makes the member unencodable."""
    usable: list[int | Vector] = []
    for text, _ in texts:
        source = sources[text]
        if isinstance(source, Unencodable):
            return source
        usable.append(source)
    return MeanSource(usable, [weight for _, weight in texts]) if usable else None


def _outcome(source: Source, rows: Sequence[Vector | Unencodable]) -> Outcome:
    if isinstance(source, int):
        return rows[source]
    if not isinstance(source, MeanSource):
        return source
    vectors: list[Vector] = []
    for text in source.texts:
        vector = rows[text] if isinstance(text, int) else text
        if isinstance(vector, Unencodable):
            return vector
        vectors.append(vector)
    return weighted_mean(vectors, source.weights)
