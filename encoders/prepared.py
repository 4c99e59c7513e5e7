"""Contexts that are ready for the device: their prompts without repeats, and where each context's vector comes from.

Needs neither a model nor a device. `encoders.encoder` fills it on the host and asks for the outcomes after the run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from encoders.errors import Outcome, SeveralVectors, Unencodable
from encoders.interests import find_interests
from encoders.package.manifest import MemberVectorsForm
from encoders.prompt.member_mean import WeightedText, weighted_mean
from encoders.prompt.member_parts import first_unencodable
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
    interests: list[MeanSource | None] = field(default_factory=list)
    """For each member the vectors and weights of the texts that it acted on. Empty where members have one vector."""
    member_vectors: MemberVectorsForm | None = None
    """How interests are made of these."""
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
        outcomes = [_outcome(source, vectors) for source in self.sources]
        if self.member_vectors is None:
            return outcomes
        form = self.member_vectors
        return [
            _with_interests(form, outcome, source, vectors)
            for outcome, source in zip(outcomes, self.interests, strict=True)
        ]


def mean_source(texts: Sequence[WeightedText], sources: Mapping[Key, TextSource]) -> MeanSource | Unencodable | None:
    """`sources` has the source of each text."""
    of_member = [sources[text] for text, _ in texts]
    if (refusal := first_unencodable(of_member)) is not None:
        return refusal
    usable = [source for source in of_member if not isinstance(source, Unencodable)]
    return MeanSource(usable, [weight for _, weight in texts]) if usable else None


def interest_source(texts: Sequence[WeightedText], sources: Mapping[Key, TextSource]) -> MeanSource | None:
    """`sources` has the source of each text. One that cannot be encoded is part of no interest."""
    of_member = [(sources[text], weight) for text, weight in texts]
    usable = [(source, weight) for source, weight in of_member if not isinstance(source, Unencodable)]
    return MeanSource([source for source, _ in usable], [weight for _, weight in usable]) if usable else None


def _with_interests(
    form: MemberVectorsForm, outcome: Outcome, source: MeanSource | None, rows: Sequence[Vector | Unencodable]
) -> Outcome:
    """A member without a vector, or with one interest, stays as it is."""
    if source is None or not isinstance(outcome, np.ndarray):
        return outcome
    vectors = [rows[text] if isinstance(text, int) else text for text in source.texts]
    pairs = list(zip(vectors, source.weights, strict=True))
    usable = [(vector, weight) for vector, weight in pairs if not isinstance(vector, Unencodable)]
    interests = find_interests(form, [vector for vector, _ in usable], [weight for _, weight in usable])
    return SeveralVectors(outcome, interests) if interests else outcome


def _outcome(source: Source, rows: Sequence[Vector | Unencodable]) -> Outcome:
    if isinstance(source, int):
        return rows[source]
    if not isinstance(source, MeanSource):
        return source
    outcomes = [rows[text] if isinstance(text, int) else text for text in source.texts]
    if (refusal := first_unencodable(outcomes)) is not None:
        return refusal
    return weighted_mean([vector for vector in outcomes if not isinstance(vector, Unencodable)], source.weights)
