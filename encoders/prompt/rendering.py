"""Contexts as the texts that are encoded, for people and for other encoders: no model is needed.

Stock sentence-transformers gives these texts the vectors that nearline gives the contexts.
"""

from collections.abc import Sequence

from encoders.errors import Unencodable
from encoders.package.manifest import MeanForm
from encoders.package.model_package import TOKENIZER_FILE, ModelPackage
from encoders.prompt.member_mean import Part, parts
from encoders.prompt.prompts import Prompt, Prompts, is_encodable
from encoders.prompt.safe_tokenizer import SafeTokenizer
from schemas.contexts import MemberContext, PostContext

Rendered = list[Part] | Unencodable
"""What the vector is the weighted mean of; empty where there is nothing to encode."""


class Renderer:
    def __init__(self, package: ModelPackage) -> None:
        self._manifest = package.manifest
        tokenizer = SafeTokenizer(package.folder / TOKENIZER_FILE, package.manifest.special_tokens)
        self._prompts = Prompts(package.manifest, tokenizer)

    def posts(self, contexts: Sequence[PostContext]) -> list[Rendered]:
        prompts = iter(self._prompts.posts([context for context in contexts if not context.deleted]))
        return [[] if context.deleted else self._whole(next(prompts)) for context in contexts]

    def members(self, contexts: Sequence[MemberContext]) -> list[Rendered]:
        form = self._manifest.member_form
        if isinstance(form, MeanForm):
            return [self._mean(form, context) for context in contexts]
        prompts = iter(self._prompts.members([context for context in contexts if is_encodable(context)]))
        return [self._whole(next(prompts)) if is_encodable(context) else [] for context in contexts]

    def _whole(self, prompt: Prompt | Unencodable) -> Rendered:
        return prompt if isinstance(prompt, Unencodable) else [Part(self._prompts.render(prompt), 1.0)]

    def _mean(self, form: MeanForm, context: MemberContext) -> Rendered:
        wanted = [] if context.deleted else parts(form, self._manifest.templates.member, context)
        found: list[Part] = []
        for prompt, part in zip(self._prompts.texts([part.text for part in wanted]), wanted, strict=True):
            if isinstance(prompt, Unencodable):
                return prompt
            found.append(Part(self._prompts.render(prompt), part.weight))
        return found
