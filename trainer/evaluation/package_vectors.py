"""A package's vectors of posts and members, at every dimension that they may be cut to.

Each text is encoded once, at the model's full size; the vectors of smaller dimensions are cut from these. Owns how
member vectors follow from their texts; knows no scores. Shapes: P posts, M members, D a dimension.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import UNSET
from msgspec.structs import replace as with_fields

from encoders.encoder import Encoder
from encoders.errors import Outcome, Unencodable, one_vector
from encoders.interests import acted_texts, asked_vectors, find_interests, quota_places
from encoders.package.manifest import (
    FormName,
    Manifest,
    MeanForm,
    MemberForm,
    MemberVectorsForm,
    PromptForm,
    form_name,
    roles,
)
from encoders.package.model_package import ModelPackage
from encoders.prepared import MeanSource, TextSource, mean_source
from encoders.prompt.member_mean import WeightedText, weighted_mean, weighted_texts
from encoders.vector_cache import Key
from schemas.contexts import MemberContext, PostContext
from schemas.embeddings import Interest, Vector

Matrix = npt.NDArray[np.float32]
WeightedVector = tuple[Vector, float]


class PackageVectors:
    def __init__(self, package: ModelPackage, *, device: str = "auto", form: FormName | None = None) -> None:
        """Checks the package's golden vectors first. `form`: of the members; None: the package's own. Raises
        PackageError."""
        Encoder.unchecked(package, device=device).check_goldens()
        manifest = with_fields(package.manifest, dimension=max(package.manifest.dimensions))
        if form not in (None, form_name(manifest.member_form)):
            manifest = _with_form(manifest, form)
        self._manifest = manifest
        # Interests are made here, at every dimension.
        of_one_vector = with_fields(manifest, member_vectors=UNSET)
        self._encoder = Encoder.unchecked(ModelPackage(package.folder, of_one_vector, package.digest), device=device)

    def posts(self, contexts: Sequence[PostContext]) -> Matrix:
        """(P, D) at full size; zeros for what cannot be encoded."""
        return _matrix(self._encoder.encode_posts(contexts), max(self._manifest.dimensions))

    def queries(self, texts: Sequence[str]) -> Matrix:
        """(Q, D) at full size, of text queries; zeros for what cannot be encoded."""
        return _matrix(self._encoder.encode_queries(texts), max(self._manifest.dimensions))

    def members(self, contexts: Sequence[MemberContext]) -> "MemberVectors":
        form = self._manifest.member_form
        if not isinstance(form, MeanForm):
            vectors_MD = _matrix(self._encoder.encode_members(contexts), self._manifest.dimension)
            return MemberVectors([[(vector_D, 1.0)] for vector_D in vectors_MD], *self._acted(contexts))
        template = self._manifest.templates.member
        sources = self._encoded([weighted_texts(form, template, context) for context in contexts])
        return MemberVectors(sources, *self._acted(contexts))

    def _acted(
        self, contexts: Sequence[MemberContext]
    ) -> "tuple[list[list[WeightedVector]], MemberVectorsForm] | tuple[()]":
        """What interests are made of; nothing for a package whose members have one vector."""
        form = self._manifest.member_vectors
        if not isinstance(form, MemberVectorsForm):
            return ()
        members = [acted_texts(form, context) for context in contexts]
        texts = list(dict.fromkeys(text for member in members for text, _ in member))
        vectors = dict(zip(texts, self._encoder.encode_texts(texts), strict=True))
        return [
            [(vector, weight) for text, weight in member if isinstance(vector := vectors[text], np.ndarray)]
            for member in members
        ], form

    def _encoded(self, members: Sequence[Sequence[WeightedText]]) -> "list[list[WeightedVector]]":
        """Each member's texts as vectors; none for a member that the encode stage would give no vector."""
        texts = list(dict.fromkeys(text for member in members for text, _ in member))
        sources: dict[Key, TextSource] = dict(zip(texts, self._encoder.encode_texts(texts), strict=True))
        return [_vectors_of(mean_source(member, sources)) for member in members]


def _vectors_of(source: MeanSource | Unencodable | None) -> "list[WeightedVector]":
    if not isinstance(source, MeanSource):
        return []
    pairs = zip(source.texts, source.weights, strict=True)
    return [(vector, weight) for vector, weight in pairs if not isinstance(vector, int)]


class MemberVectors:
    """For each member the vectors and weights of which its own vector is the mean, and those of what it acted on."""

    def __init__(
        self,
        sources: Sequence[Sequence[WeightedVector]],
        acted: Sequence[Sequence[WeightedVector]] = (),
        form: MemberVectorsForm | None = None,
    ) -> None:
        """`form`: how interests are made of what each member acted on; None: every member has one vector."""
        self._sources = sources
        self._acted = acted
        self._form = form

    def rows(self, rows: slice) -> "MemberVectors":
        return MemberVectors(self._sources[rows], self._acted[rows], self._form)

    def scores(self, posts_CD: Matrix, hidden_MC: npt.NDArray[np.bool_] | None = None) -> Matrix:
        """(M, C): the higher, the earlier a post stands in the member's answer; minus infinity for a hidden one. Of a
        member with several interests they may be no products: they only say the order in which the retriever takes the
        posts."""
        dimension = posts_CD.shape[1]
        members_MD = self.cut(dimension)
        scores_MC: Matrix = members_MD @ posts_CD.T
        nothing_hidden = np.zeros(len(posts_CD), dtype=np.bool_)
        for row, interests in enumerate(self.interests(dimension)):
            hidden_C = nothing_hidden if hidden_MC is None else hidden_MC[row]
            if interests and scores_MC[row].any():
                asked = asked_vectors(members_MD[row], interests)
                scores_MC[row] = _order_of_several(asked, posts_CD, hidden_C, self._form)
        if hidden_MC is not None:
            scores_MC[hidden_MC] = -np.inf
        return scores_MC

    def interests(self, dimension: int) -> list[list[Interest]]:
        """Of each member; empty for one with one vector."""
        form = self._form
        if form is None:
            return []
        return [
            find_interests(
                form, list(cut(np.stack([vector for vector, _ in acted]), dimension)), [weight for _, weight in acted]
            )
            if acted
            else []
            for acted in self._acted
        ]

    def cut(self, dimension: int) -> Matrix:
        """(M, D); zeros for a member with nothing to encode."""
        return _matrix([self._mean(member, dimension) for member in self._sources], dimension)

    def _mean(self, member: Sequence[WeightedVector], dimension: int) -> Vector | None:
        if not member:
            return None
        vectors = cut(np.stack([vector for vector, _ in member]), dimension)
        return weighted_mean(list(vectors), [weight for _, weight in member])


def _order_of_several(
    asked: Sequence[Interest],
    posts_CD: Matrix,
    hidden_C: npt.NDArray[np.bool_],
    form: MemberVectorsForm | None,
) -> Matrix:
    """(C,): as `retriever/answer/combine.py` combines their lists."""
    scores_IC = np.stack([each.vector_D for each in asked]) @ posts_CD.T
    scores_IC[:, hidden_C] = -np.inf
    best_C: Matrix = scores_IC.max(axis=0)
    if form is None or form.merge == "best":
        return best_C
    ranks_IC = np.argsort(np.argsort(-scores_IC, axis=1, kind="stable"), axis=1, kind="stable")
    places_IC = [quota_places(ranks_C, each.weight) for ranks_C, each in zip(ranks_IC, asked, strict=True)]
    order_C: Matrix = -np.min(places_IC, axis=0).astype(np.float32)
    return order_C


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
    for row, outcome in enumerate(map(one_vector, outcomes)):
        if isinstance(outcome, np.ndarray):
            matrix[row] = outcome
    return matrix
