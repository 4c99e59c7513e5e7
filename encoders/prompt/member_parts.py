"""What a member's vector is made of, by either member form: one rule for serving, evaluation and training.

A member of the form `prompt` is one prompt, a member of the form `mean` is the weighted mean of several. A member of
whose parts one cannot be encoded has no vector: a mean of the rest would be another member. Knows no model.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from encoders.errors import Unencodable
from encoders.package.manifest import Manifest, MeanForm
from encoders.prompt.member_mean import weighted_texts
from encoders.prompt.prompts import Prompt, Prompts, is_encodable
from schemas.contexts import MemberContext


class WeightedPrompt(NamedTuple):
    prompt: Prompt
    weight: float


MemberParts = list[WeightedPrompt] | Unencodable
"""The vector is the weighted mean of these prompts' vectors; empty where there is nothing to encode."""


def member_parts(manifest: Manifest, prompts: Prompts, contexts: Sequence[MemberContext]) -> list[MemberParts]:
    """One for each context. `prompts`: of the same package."""
    form, template = manifest.member_form, manifest.templates.member
    if isinstance(form, MeanForm):
        members = [weighted_texts(form, template, context) for context in contexts]
        texts = iter(prompts.texts([text for member in members for text, _ in member]))
        weights = ([weight for _, weight in member] for member in members)
        return [_parts(list(islice(texts, len(of_member))), of_member) for of_member in weights]
    whole = iter(prompts.members([context for context in contexts if is_encodable(context, template)]))
    return [_parts([next(whole)], [1.0]) if is_encodable(context, template) else [] for context in contexts]


def first_unencodable(parts: Iterable[object]) -> Unencodable | None:
    """Why a member of these parts has no vector; None if it has one."""
    return next((part for part in parts if isinstance(part, Unencodable)), None)


def _parts(prompts: Sequence[Prompt | Unencodable], weights: Sequence[float]) -> MemberParts:
    if (refusal := first_unencodable(prompts)) is not None:
        return refusal
    usable = (prompt for prompt in prompts if not isinstance(prompt, Unencodable))
    return [WeightedPrompt(prompt, weight) for prompt, weight in zip(usable, weights, strict=True)]
