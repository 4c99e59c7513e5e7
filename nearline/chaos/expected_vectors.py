"""The vectors that contexts must have: by the code of `nearline encode`, in this process."""

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
_Kept = dict[str, tuple[_Context, Outcome]]


class ExpectedVectors(Protocol):
    """One outcome for each context, in order."""

    def posts(self, contexts: Sequence[PostContext]) -> list[Outcome]: ...

    def members(self, contexts: Sequence[MemberContext]) -> list[Outcome]: ...

    def question(self, text: str) -> Vector: ...


class ReEncodedVectors:
    """Encodes only contexts that have changed since it was asked last."""

    def __init__(self, package: Path) -> None:
        self._package = package
        self._posts: _Kept[PostContext] = {}
        self._members: _Kept[MemberContext] = {}
        self.question = lru_cache(self._question)

    @cached_property
    def _encoder(self) -> "Encoder":
        from encoders.encoder import Encoder

        return Encoder.load(self._package)

    def posts(self, contexts: Sequence[PostContext]) -> list[Outcome]:
        return _with_kept(self._posts, contexts, lambda context: context.post_id, self._encoder.encode_posts)

    def members(self, contexts: Sequence[MemberContext]) -> list[Outcome]:
        return _with_kept(self._members, contexts, lambda context: context.member_id, self._encoder.encode_members)

    def _question(self, text: str) -> Vector:
        return self._encoder.encode_text(text)


def _with_kept(
    kept: _Kept[_Context],
    contexts: Sequence[_Context],
    entity_id: Callable[[_Context], str],
    encode: Callable[[Sequence[_Context]], list[Outcome]],
) -> list[Outcome]:
    changed = [context for context in contexts if kept.get(entity_id(context), (None,))[0] != context]
    for context, outcome in zip(changed, encode(changed), strict=True):
        kept[entity_id(context)] = context, outcome
    return [kept[entity_id(context)][1] for context in contexts]
