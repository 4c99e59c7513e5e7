"""The vectors that contexts must have: computed in this process, by the code of `nearline encode`."""

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from encoders.errors import Outcome
from schemas.contexts import MemberContext, PostContext
from schemas.embeddings import Vector

if TYPE_CHECKING:
    from encoders.encoder import Encoder

_Context = TypeVar("_Context", PostContext, MemberContext)
_Encoded = dict[str, tuple[_Context, Outcome]]


class ExpectedVectors(Protocol):
    """Each function returns one outcome for each context, in order."""

    def posts(self, contexts: Sequence[PostContext]) -> list[Outcome]: ...

    def members(self, contexts: Sequence[MemberContext]) -> list[Outcome]: ...

    def question(self, text: str) -> Vector: ...


class ReEncodedVectors:
    """Encodes a context again only when it has changed since the last call."""

    def __init__(self, package: Path) -> None:
        self._package = package
        self._posts: _Encoded[PostContext] = {}
        self._members: _Encoded[MemberContext] = {}
        self.question = lru_cache(self._question)

    @cached_property
    def _encoder(self) -> "Encoder":
        from encoders.encoder import Encoder

        return Encoder.load(self._package)

    def posts(self, contexts: Sequence[PostContext]) -> list[Outcome]:
        return _encode_changed(self._posts, contexts, lambda context: context.post_id, self._encoder.encode_posts)

    def members(self, contexts: Sequence[MemberContext]) -> list[Outcome]:
        return _encode_changed(self._members, contexts, lambda context: context.member_id, self._encoder.encode_members)

    def _question(self, text: str) -> Vector:
        return self._encoder.encode_text(text)


def _encode_changed(
    encoded: _Encoded[_Context],
    contexts: Sequence[_Context],
    entity_id: Callable[[_Context], str],
    encode: Callable[[Sequence[_Context]], list[Outcome]],
) -> list[Outcome]:
    changed = [context for context in contexts if encoded.get(entity_id(context), (None,))[0] != context]
    for context, outcome in zip(changed, encode(changed), strict=True):
        encoded[entity_id(context)] = context, outcome
    return [encoded[entity_id(context)][1] for context in contexts]
