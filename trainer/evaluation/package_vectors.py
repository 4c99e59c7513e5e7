"""A package's vectors of posts and members, at every dimension that they may be cut to.

Each text is encoded once, at the model's full size; the vectors of smaller dimensions are cut from these. Owns how
member vectors follow from their texts; knows no scores. Shapes: P posts, M members, D a dimension.
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
    def __init__(self, package: ModelPackage, *, device: str = "auto", form: FormName | None = None) -> None:
        """Checks the package's golden vectors first. `form`: of the members; None: the package's own. Raises
        PackageError."""
        Encoder.unchecked(package, device=device).check_goldens()
        manifest = with_fields(package.manifest, dimension=max(package.manifest.dimensions))
        if form not in (None, form_name(manifest.member_form)):
            manifest = _with_form(manifest, form)
        self._manifest = manifest
        self._encoder = Encoder.unchecked(ModelPackage(package.folder, manifest, package.digest), device=device)

    def posts(self, contexts: Sequence[PostContext]) -> Matrix:
        """(P, D) at full size; zeros for what cannot be encoded."""
        return _matrix(self._encoder.encode_posts(contexts), max(self._manifest.dimensions))

    def members(self, contexts: Sequence[MemberContext]) -> "MemberVectors":
        form = self._manifest.member_form
        if not isinstance(form, MeanForm):
            vectors_MD = _matrix(self._encoder.encode_members(contexts), self._manifest.dimension)
            return MemberVectors([[(vector_D, 1.0)] for vector_D in vectors_MD])
        template = self._manifest.templates.member
        return MemberVectors(self._encoded([weighted_texts(form, template, context) for context in contexts]))

    def _encoded(self, members: Sequence[Sequence[WeightedText]]) -> "list[list[tuple[Vector, float]]]":
        """Each member's texts as vectors; a text that cannot be encoded is left out."""
        texts = list(dict.fromkeys(text for member in members for text, _ in member))
        outcomes = dict(zip(texts, self._encoder.encode_texts(texts), strict=True))
        return [
            [(vector, weight) for text, weight in member if not isinstance(vector := outcomes[text], Unencodable)]
            for member in members
        ]


class MemberVectors:
    """For each member the vectors and weights of which its own vector is the mean."""

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


def _with_form(manifest: Manifest, form: FormName | None) -> Manifest:
    """The package with the other member form. Where it lacks a special token that a prompt needs, the token that begins
    every text takes its place."""
    member_form: MemberForm = MeanForm() if form == "mean" else PromptForm()
    text_token = manifest.special_tokens["text"]
    tokens = dict.fromkeys(roles(manifest.templates, member_form), text_token) | manifest.special_tokens
    return with_fields(manifest, member_form=member_form, special_tokens=tokens)


def cut(vectors_PD: Matrix, dimension: int) -> Matrix:
    """(P, D) -> (P, a smaller D), of length one again."""
    shorter_PD = vectors_PD[:, :dimension]
    lengths_P1 = np.linalg.norm(shorter_PD, axis=1, keepdims=True)
    unit_PD: Matrix = np.divide(shorter_PD, lengths_P1, out=np.zeros_like(shorter_PD), where=lengths_P1 > 0)
    return unit_PD


def _matrix(outcomes: Sequence[Outcome | Any], dimension: int) -> Matrix:
    """One row for each outcome; zeros where it is no vector."""
    matrix = np.zeros((len(outcomes), dimension), dtype=np.float32)
    for row, outcome in enumerate(outcomes):
        if isinstance(outcome, np.ndarray):
            matrix[row] = outcome
    return matrix
