"""Contexts as the texts that are encoded, for people and for other encoders. No model is needed.

Stock sentence-transformers gives these texts the same vectors that nearline gives the contexts.
"""

from collections.abc import Sequence

from encoders.errors import Unencodable
from encoders.package.manifest import MeanForm
from encoders.package.model_package import TOKENIZER_FILE, ModelPackage
from encoders.prompt.member_mean import WeightedText, weighted_texts
from encoders.prompt.prompts import Prompt, Prompts, is_encodable
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
        form = self._manifest.member_form
        if isinstance(form, MeanForm):
            return [self._mean(form, context) for context in contexts]
        prompts = iter(self._prompts.members([context for context in contexts if is_encodable(context)]))
        return [self._rendered(next(prompts)) if is_encodable(context) else [] for context in contexts]

    def _rendered(self, prompt: Prompt | Unencodable) -> Rendered:
        return prompt if isinstance(prompt, Unencodable) else [WeightedText(self._prompts.render(prompt), 1.0)]

    def _mean(self, form: MeanForm, context: MemberContext) -> Rendered:
        member = [] if context.deleted else weighted_texts(form, self._manifest.templates.member, context)
        rendered: list[WeightedText] = []
        for prompt, (_, weight) in zip(self._prompts.texts([text for text, _ in member]), member, strict=True):
            if isinstance(prompt, Unencodable):
                return prompt
            rendered.append(WeightedText(self._prompts.render(prompt), weight))
        return rendered
