"""Contexts as the texts that are encoded, for people and for other encoders. No model is needed.

Stock sentence-transformers gives these texts the same vectors that nearline gives the contexts.
"""

from collections.abc import Sequence

from encoders.errors import Unencodable
from encoders.package.model_package import TOKENIZER_FILE, ModelPackage
from encoders.prompt.member_mean import WeightedText
from encoders.prompt.member_parts import member_parts
from encoders.prompt.prompts import Prompt, Prompts
from encoders.prompt.safe_tokenizer import SafeTokenizer
from schemas.contexts import MemberContext, PostContext

Rendered = list[WeightedText] | Unencodable
"""The vector is the weighted mean of these texts' vectors; empty where there is nothing to encode."""


class Renderer:
    def __init__(self, package: ModelPackage) -> None:
        self._manifest = package.manifest
        tokenizer = SafeTokenizer(package.folder / TOKENIZER_FILE, package.manifest.special_tokens)
        self._prompts = Prompts(package.manifest, tokenizer)

    def posts(self, contexts: Sequence[PostContext]) -> list[Rendered]:
        prompts = iter(self._prompts.posts([context for context in contexts if not context.deleted]))
        return [[] if context.deleted else self._rendered(next(prompts)) for context in contexts]

    def members(self, contexts: Sequence[MemberContext]) -> list[Rendered]:
        return [
            parts
            if isinstance(parts, Unencodable)
            else [WeightedText(self._prompts.render(prompt), weight) for prompt, weight in parts]
            for parts in member_parts(self._manifest, self._prompts, contexts)
        ]

    def _rendered(self, prompt: Prompt | Unencodable) -> Rendered:
        return prompt if isinstance(prompt, Unencodable) else [WeightedText(self._prompts.render(prompt), 1.0)]
