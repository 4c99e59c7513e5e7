"""An encoder without a model: each text has a vector of its own, so that a test knows what to expect."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from encoders.errors import Outcome, Unencodable
from schemas.contexts import MemberContext, PostContext
from schemas.embeddings import Vector
from tests.kit.data.embeddings import DIMENSION

POISON = "POISON"


def vector_of(text: str) -> Vector:
    vector = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(DIMENSION).astype(np.float32)
    return vector / np.linalg.norm(vector)


@dataclass
class Prepared:
    kind: str
    contexts: Sequence[PostContext] | Sequence[MemberContext]
    device_s: float = 0.0


class HashEncoder:
    """Remembers what it was asked to encode. A text with POISON in it can never be encoded."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, int]] = []
        self.calls: list[str] = []

    def prepare_posts(self, contexts: Sequence[PostContext]) -> Prepared:
        return Prepared("post", contexts)

    def prepare_post_texts(self, contexts: Sequence[PostContext]) -> Prepared:
        return Prepared("text", contexts)

    def prepare_members(self, contexts: Sequence[MemberContext]) -> Prepared:
        return Prepared("member", contexts)

    def run(self, prepared: Prepared) -> list[Outcome]:
        self.calls.append(prepared.kind)
        if prepared.kind == "text":
            texts = (context.text for context in prepared.contexts if isinstance(context, PostContext))
            return [text_vector_of(text) if text else None for text in texts]
        return [self._outcome(context) for context in prepared.contexts]

    def _outcome(self, context: PostContext | MemberContext) -> Outcome:
        if isinstance(context, MemberContext):
            return _outcome(context.headline) if context.headline else None
        self.posts.append((context.post_id, context.revision))
        return None if context.deleted else _outcome(context.text)


class MendedEncoder(HashEncoder):
    """Gives every text another vector than HashEncoder does: `mended_vector_of`."""

    def _outcome(self, context: PostContext | MemberContext) -> Outcome:
        outcome = super()._outcome(context)
        text = context.text if isinstance(context, PostContext) else context.headline
        return mended_vector_of(text or "") if isinstance(outcome, np.ndarray) else outcome


def text_vector_of(text: str) -> Vector:
    """Of the text alone."""
    return vector_of(f"the text alone: {text}")


def mended_vector_of(text: str) -> Vector:
    return -vector_of(text)


def _outcome(text: str) -> Outcome:
    return Unencodable("the text is poison") if POISON in text else vector_of(text)
