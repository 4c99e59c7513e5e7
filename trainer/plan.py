"""The plan of a training: everything, besides the events, that decides what package it makes.

Owns what follows from the settings and the start together: templates and member form, learning rates, token dropout,
and what the package says about its training. Runs nothing.
"""

from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from msgspec import UNSET, UnsetType

from encoders.model.llama import LlamaConfig
from encoders.model.loading import read_config
from encoders.package.manifest import (
    MANIFEST_FILE,
    Manifest,
    MeanForm,
    MemberForm,
    MemberVectorsForm,
    PostTemplate,
    PromptForm,
    QueryTemplate,
    Templates,
    TokenLimits,
    form_name,
)
from encoders.package.model_package import ModelPackage
from schemas.ids import Micros
from schemas.times import from_rfc3339, to_rfc3339
from trainer.data.dataset import TrainingData
from trainer.device_use import DeviceUse, device_use, this_card
from trainer.errors import BadStart
from trainer.scratch_config import scratch_config
from trainer.settings import TrainSettings

_VERSIONS: Final = ("torch", "transformers", "sentence-transformers", "peft", "tokenizers", "scikit-learn", "numpy")
_TOKEN_DROPOUT: Final = 0.5
"""The token dropout for a model that is made from scratch, unless the settings name another."""


class Rates(NamedTuple):
    rate: float
    embedding_rate: float


_FROM_SCRATCH: Final = Rates(2e-3, 6e-3)
_PRETRAINED: Final = Rates(2e-5, 6e-5)
"""For a model that has read trillions of words: what suits a model made from scratch would undo that."""
_ADAPTERS: Final = Rates(2e-4, 2e-3)
"""For LoRA: adapters begin at nothing, and so do the embeddings of the special tokens, which alone learn there."""
_AGAIN: Final = 0.5
"""Of the rates that a package was trained with, when training goes on from it: most is learned already. If adapters
learned, these rates say nothing about all weights."""


class PackagePrompts(NamedTuple):
    """What the package says about its prompts."""

    templates: Templates
    form: MemberForm

    @property
    def are_texts(self) -> bool:
        """Whether texts are all that a prompt of a post holds, and members are means of such prompts."""
        return self.templates.post.fields == ("text",) and isinstance(self.form, MeanForm)


@dataclass(frozen=True)
class Plan:
    cut_us: Micros
    """Only events before this time are learned from. Later ones are for the evaluation."""
    tokens: int
    """How many tokens the model is trained on."""
    seed: int
    settings: TrainSettings
    package_id: str
    start: Path | None = None
    """A package or a Hugging Face folder; None: from scratch."""
    texts_alone: TrainSettings | None = None
    """Settings for texts alone, which are tried on the inner split beside the others where nobody asked for these."""

    @property
    def token_dropout(self) -> float:
        if self.settings.token_dropout is not None:
            return self.settings.token_dropout
        return _TOKEN_DROPOUT if self.start is None else 0.0

    @property
    def train_tokens(self) -> int:
        """How many tokens training sees of a post: as many as the package encodes, unless the settings name another
        number."""
        if self.settings.train_tokens is not None:
            return self.settings.train_tokens
        if self.start is None:
            return self.settings.post_tokens
        return (TokenLimits() if self.base is None else self.base.token_limits).post

    @cached_property
    def base(self) -> Manifest | None:
        """Of the package that it starts from. Raises PackageError."""
        if self.start is None or not (self.start / MANIFEST_FILE).exists():
            return None
        return ModelPackage.read(self.start).manifest

    @property
    def until_us(self) -> Micros:
        """What the model knows ends here: at the cut, or where what its base knows ends, if that is later."""
        until = None if self.base is None else self.base.training.get("until")
        return max(self.cut_us, from_rfc3339(until)) if isinstance(until, str) else self.cut_us

    @property
    def rates(self) -> Rates:
        settings = self.settings
        default = self._default_rates()
        return Rates(settings.rate or default.rate, settings.embedding_rate or default.embedding_rate)

    @property
    def device_use(self) -> DeviceUse:
        """Raises BadStart where the model is too large for the device, and BadPackage."""
        settings = self.settings.model_copy(update={"train_tokens": self.train_tokens})
        return device_use(settings, self._config, this_card())

    @property
    def prompts(self) -> PackagePrompts:
        """Raises BadStart where the settings ask for what the package that it starts from does not have."""
        settings, base = self.settings, self.base
        asked = None if settings.templates is None else settings.templates.templates()
        if base is None:
            is_prompt = settings.member_form == "prompt"
            form: MemberForm = PromptForm(settings.history) if is_prompt else MeanForm(max_entries=settings.history)
            return PackagePrompts(asked or Templates(PostTemplate(("text",))), form)
        if asked is not None and asked != base.templates:
            raise BadStart(
                f"{self.start} has other templates than the settings name; a model knows only the prompts that it has "
                "learned: take templates out of the settings, or leave --from out"
            )
        if settings.member_form not in (None, form_name(base.member_form)):
            raise BadStart(
                f"{self.start} has the member form {form_name(base.member_form)}, and member_form is "
                f"{settings.member_form}; take it out of the settings, or leave --from out"
            )
        return PackagePrompts(base.templates, base.member_form)

    def refuse_what_is_not_learned(self) -> None:
        """Raises BadStart where prompts would be served with what no step of this training sees, or where the settings
        ask for what the member form leaves out."""
        settings, (templates, form) = self.settings, self.prompts
        is_learned = self.base is not None and bool(self.base.training)
        has_instruction = isinstance(templates.query, QueryTemplate) and bool(templates.query.instruction)
        if has_instruction and "search" not in settings.tasks and not is_learned:
            raise BadStart(
                "text queries begin with query_instruction, which only the task search teaches; name search under "
                "tasks, or leave query_instruction out"
            )
        if settings.member_form == "auto" or self.base is not None or not isinstance(form, MeanForm):
            return
        member = templates.member
        asked = {
            "member_instruction": bool(member.instruction),
            "history_ages": member.history_ages,
            "the language of profiles": "language" in member.profile,
        }
        if unused := [name for name, is_asked in asked.items() if is_asked]:
            raise BadStart(
                f"templates asks for {', '.join(unused)}, which the member form mean does not use; take it out, or set "
                "member_form to prompt or auto"
            )

    @property
    def member_vectors(self) -> MemberVectorsForm | UnsetType:
        """How members get several vectors: as the settings say, else as the package that it starts from."""
        if self.settings.member_vectors is not None:
            return self.settings.member_vectors.form()
        return UNSET if self.base is None else self.base.member_vectors

    @property
    def example_negatives(self) -> int | None:
        """None where posts are learned from alone, by which of them belong together. Otherwise examples are made, of
        members and posts as they were, and have so many negatives at most."""
        are_texts = self.prompts.are_texts
        return None if are_texts and self.settings.templates is None else self.settings.negatives

    def record(self, data: TrainingData) -> dict[str, Any]:
        """What the package says about its training. The same record and the same events give the same package, file for
        file, on the same kind of processor, also if the training was killed and resumed. That is why the record names
        `threads` (torch's) and `versions`: with other values sums are rounded differently. The number of threads of
        BLAS changes nothing, so it is not recorded; neither does a compiler."""
        return {
            "until": to_rfc3339(self.until_us),
            "from": to_rfc3339(Micros(int(data.created_us[0]))),
            "counts": data.counts,
            "tokens": self.tokens,
            "seed": self.seed,
            "threads": torch.get_num_threads(),
            "start": None if self.start is None else self.start.name,
            "settings": self.settings.model_dump(mode="json")
            | self.rates._asdict()
            | self.device_use._asdict()
            | {"token_dropout": self.token_dropout, "train_tokens": self.train_tokens},
            "device": this_card().name,
            "versions": {name: version(name) for name in _VERSIONS},
        }

    def _config(self) -> LlamaConfig:
        if self.start is None:
            return scratch_config(self.settings, self.settings.vocabulary)
        return read_config(self.start)

    def _default_rates(self) -> Rates:
        if self.start is None:
            return _FROM_SCRATCH
        if self.settings.lora_rank:
            return _ADAPTERS
        trained = {} if self.base is None else self.base.training.get("settings", {})
        if not isinstance(trained, dict) or trained.get("lora_rank"):
            return _PRETRAINED
        rates = [_AGAIN * rate for name in Rates._fields if isinstance(rate := trained.get(name), int | float)]
        if len(rates) == len(Rates._fields):
            return Rates(*rates)
        return _PRETRAINED
