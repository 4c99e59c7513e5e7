"""Vectors of posts and members by a package, at every dimension that they may be cut to.

Each text is encoded once, at the model's full size; what a package cut to fewer dimensions would give follows from it.
Shapes: P posts, M members, D a dimension.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace as with_fields

from encoders.encoder import Encoder
from encoders.errors import Outcome, Unencodable
from encoders.package.manifest import Manifest, MeanForm, MemberForm, PromptForm, roles
from encoders.package.model_package import ModelPackage
from encoders.prompt.member_mean import WeightedText, weighted_mean, weighted_texts
from schemas.contexts import MemberContext, PostContext
from schemas.embeddings import Vector

Matrix = npt.NDArray[np.float32]
FormName = Literal["mean", "prompt"]


class PackageVectors:
    """What a package makes of contexts. Checks the package's digests and golden vectors first."""

    def __init__(self, package: ModelPackage, *, device: str = "auto", form: FormName | None = None) -> None:
        """`form`: of members; None: the package's own. Raises PackageError."""
        Encoder.unchecked(package, device=device).check_goldens()
        manifest = with_fields(package.manifest, dimension=max(package.manifest.dimensions))
        if form not in (None, form_name(manifest.member_form)):
            manifest = _in_form(manifest, form)
        self._manifest = manifest
        self._encoder = Encoder.unchecked(ModelPackage(package.folder, manifest, package.digest), device=device)

    def posts(self, contexts: Sequence[PostContext]) -> Matrix:
        """(P, D) at full size; zeros for what cannot be encoded."""
        return _matrix(self._encoder.encode_posts(contexts), max(self._manifest.dimensions))

    def members(self, contexts: Sequence[MemberContext]) -> "MemberVectors":
        form = self._manifest.member_form
        if not isinstance(form, MeanForm):
            whole = _matrix(self._encoder.encode_members(contexts), self._manifest.dimension)
            return MemberVectors([[(vector, 1.0)] for vector in whole])
        wanted = [weighted_texts(form, self._manifest.templates.member, context) for context in contexts]
        return MemberVectors(self._of_parts(wanted))

    def _of_parts(self, wanted: Sequence[Sequence[WeightedText]]) -> "list[list[tuple[Vector, float]]]":
        texts = list(dict.fromkeys(part.text for member in wanted for part in member))
        found = dict(zip(texts, self._encoder.encode_texts(texts), strict=True))
        return [
            [(vector, part.weight) for part in member if not isinstance(vector := found[part.text], Unencodable)]
            for member in wanted
        ]


class MemberVectors:
    """Of each member the vectors that its own is the weighted mean of."""

    def __init__(self, sources: Sequence[Sequence[tuple[Vector, float]]]) -> None:
        self._sources = sources

    def cut(self, dimension: int) -> Matrix:
        """(M, D); zeros for a member with nothing to encode."""
        return _matrix([self._mean(member, dimension) for member in self._sources], dimension)

    def _mean(self, member: Sequence[tuple[Vector, float]], dimension: int) -> Vector | None:
        if not member:
            return None
        vectors = cut(np.stack([vector for vector, _ in member]), dimension)
        return weighted_mean(list(vectors), [weight for _, weight in member])


def form_name(form: MemberForm) -> FormName:
    return "mean" if isinstance(form, MeanForm) else "prompt"


def _in_form(manifest: Manifest, form: FormName | None) -> Manifest:
    """What the package would be with the other form. Where it has no special token of a prompt's, its text begins as
    every text does."""
    other: MemberForm = MeanForm() if form == "mean" else PromptForm()
    text = manifest.special_tokens["text"]
    tokens = dict.fromkeys(roles(manifest.templates, other), text) | manifest.special_tokens
    return with_fields(manifest, member_form=other, special_tokens=tokens)


def cut(vectors: Matrix, dimension: int) -> Matrix:
    """(P, D) -> (P, fewer D), of length one again."""
    shorter = vectors[:, :dimension]
    lengths = np.linalg.norm(shorter, axis=1, keepdims=True)
    found: Matrix = np.divide(shorter, lengths, out=np.zeros_like(shorter), where=lengths > 0)
    return found


def _matrix(outcomes: Sequence[Outcome | Any], dimension: int) -> Matrix:
    found = np.zeros((len(outcomes), dimension), dtype=np.float32)
    for row, outcome in enumerate(outcomes):
        if isinstance(outcome, np.ndarray):
            found[row] = outcome
    return found
