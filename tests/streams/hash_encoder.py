"""An encoder without a model: each text has a vector of its own, so that a test knows what to expect."""

import zlib
from collections.abc import Sequence

import numpy as np

from encoders.errors import Outcome, Unencodable
from schemas.contexts import MemberContext, PostContext
from schemas.embeddings import Vector
from tests.streams.stage_kit import DIMENSION

POISON = "POISON"


def vector_of(text: str) -> Vector:
    vector = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(DIMENSION).astype(np.float32)
    return vector / np.linalg.norm(vector)


class HashEncoder:
    """Counts what it was asked for. A text with POISON in it can never be encoded."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, int]] = []
        self.calls: list[str] = []

    def encode_posts(self, contexts: Sequence[PostContext]) -> list[Outcome]:
        self.calls.append("post")
        self.posts += [(context.post_id, context.revision) for context in contexts]
        return [None if context.deleted else _outcome(context.text) for context in contexts]

    def encode_members(self, contexts: Sequence[MemberContext]) -> list[Outcome]:
        self.calls.append("member")
        return [_outcome(context.headline) if context.headline else None for context in contexts]


def _outcome(text: str) -> Outcome:
    return Unencodable("the text is poison") if POISON in text else vector_of(text)
