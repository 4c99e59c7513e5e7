"""Training prompts: rendered once, by the encode stage's own `Prompts`, and kept until the steps need them.

Owns how prompts are kept, and which of their tokens a step may drop. What is in a prompt is said in `encoders.prompt`
alone. Knows no model and no batches.
"""

from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from encoders.errors import Unencodable
from encoders.package.manifest import Manifest, MemberTemplate
from encoders.prompt.member_parts import MemberParts, member_parts
from encoders.prompt.prompts import Prompt, Prompts
from encoders.prompt.safe_tokenizer import SafeTokenizer, TokenIds
from schemas.contexts import MemberContext, PostContext
from schemas.ids import MemberId
from trainer.data.auxiliary_tasks import Part

MarkedIds = npt.NDArray[np.int32]
"""Token ids; a token that a step may drop is its complement, and so below zero."""


class MarkingTokenizer(SafeTokenizer):
    """Marks the tokens of texts. `Prompts` asks for texts in batches, and one by one for what a field says: profiles,
    languages, percentiles, instructions. These and the special tokens are never dropped, because few tokens say much
    there."""

    def batch(self, texts: Sequence[str]) -> list[TokenIds | Unencodable]:
        return [
            ids if isinstance(ids, Unencodable) else [~token_id for token_id in ids] for ids in super().batch(texts)
        ]


def token_ids(marked: MarkedIds) -> MarkedIds:
    """The ids as the model takes them."""
    return np.where(marked < 0, ~marked, marked)


class PromptTable:
    """Different prompts, each with a number. It has 4 bytes for each token."""

    def __init__(self, share_kept: float) -> None:
        """`share_kept`: of the tokens that may be dropped, how many a step sees."""
        self.prompts: list[MarkedIds] = []
        self._numbers: dict[bytes, int] = {}
        self._share_kept = share_kept
        self._lengths: list[int] = []

    def add(self, prompt: Prompt) -> int:
        """The prompt's number; a prompt that is there already keeps its first one."""
        ids = array("i", prompt).tobytes()
        number = self._numbers.setdefault(ids, len(self.prompts))
        if number == len(self.prompts):
            marked = np.frombuffer(ids, dtype=np.int32)
            num_droppable = int((marked < 0).sum())
            self.prompts.append(marked)
            self._lengths.append(len(marked) - num_droppable + round(num_droppable * self._share_kept))
        return number

    def length(self, number: int) -> int:
        """How many tokens a step sees of this prompt, on average."""
        return self._lengths[number]


def part_context(context: PostContext, part: Part) -> PostContext:
    """The post as it would be if it had no more to say than the part."""
    author_id = MemberId("") if part.without_author else context.author_id
    return replace(context, text=part.text, author_id=author_id)


class TrainingPrompts:
    """Renders contexts as the encode stage does with a package of this manifest, and keeps the prompts in a table."""

    def __init__(self, manifest: Manifest, tokenizer_file: Path, share_kept: float) -> None:
        self.table = PromptTable(share_kept)
        self._manifest = manifest
        self._prompts = Prompts(manifest, MarkingTokenizer(tokenizer_file, manifest.special_tokens))
        self._posts: dict[tuple[str, int], int | None] = {}

    @property
    def member_template(self) -> MemberTemplate:
        return self._manifest.templates.member

    def member(self, context: MemberContext) -> list[tuple[int, float]]:
        """The numbers of the member's prompts, each with its weight. Empty where the member would have no vector."""
        (parts,) = self.member_parts([context])
        if isinstance(parts, Unencodable):
            return []
        return [(self.table.add(prompt), weight) for prompt, weight in parts if weight > 0]

    def member_parts(self, contexts: Sequence[MemberContext]) -> list[MemberParts]:
        return member_parts(self._manifest, self._prompts, contexts)

    def post(self, context: PostContext) -> int | None:
        """None for a post that would have no vector."""
        key = context.post_id, context.revision
        if key not in self._posts:
            self._posts[key] = self._number(self._prompts.posts([context]))
        return self._posts[key]

    def part(self, context: PostContext, part: Part) -> int | None:
        """By the query template, or by the post template with the other fields as they are in the context."""
        if part.is_query:
            return self._number(self._prompts.queries([part.text]))
        return self._number(self._prompts.posts([part_context(context, part)]))

    def _number(self, prompts: Sequence[Prompt | Unencodable]) -> int | None:
        (prompt,) = prompts
        return None if isinstance(prompt, Unencodable) else self.table.add(prompt)
