"""The settings of a training, checked when they are read."""

import tomllib
from pathlib import Path
from typing import Any, Literal

from msgspec import UNSET
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from encoders.package.manifest import (
    MemberTemplate,
    MemberVectorsForm,
    PoolingMode,
    PostTemplate,
    QueryTemplate,
    Templates,
)
from trainer.errors import BadStart

TaskName = Literal["interest", "storyline", "tag", "search"]


class TemplateSettings(BaseModel):
    """What prompts hold. The fields are those of `encoders.package.manifest`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    post: tuple[str, ...] = ("text",)
    """author, language, age, count.like, rate.like and so on for each action, and last of all text."""
    post_instruction: str = ""
    profile: tuple[str, ...] | None = None
    """headline, skills, industry, language; None: the first three."""
    history_ages: bool = False
    """Each entry of a member's history also holds its age, as a percentile."""
    member_instruction: str = ""
    query_instruction: str = ""
    """Before the words of a text query. The task search teaches it, and has to be named. Empty: a query is as a post of
    which only the text is known."""

    @model_validator(mode="after")
    def _are_templates(self) -> "TemplateSettings":
        self.templates()
        return self

    def templates(self) -> Templates:
        """Raises ValueError."""
        profile = MemberTemplate().profile if self.profile is None else self.profile
        return Templates(
            PostTemplate(self.post, self.post_instruction),
            MemberTemplate(profile, self.member_instruction, self.history_ages),
            QueryTemplate(self.query_instruction) if self.query_instruction else UNSET,
        )


class MemberVectorsSettings(BaseModel):
    """Several vectors of a member: those of `encoders.package.manifest`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    most: int = Field(MemberVectorsForm().most, ge=2, le=5)
    distance: PositiveFloat = MemberVectorsForm().distance
    half_life_s: PositiveFloat = MemberVectorsForm().half_life_s
    merge: Literal["quota", "best"] = MemberVectorsForm().merge

    def form(self) -> MemberVectorsForm:
        return MemberVectorsForm(self.most, self.distance, self.half_life_s, self.merge)


class TrainSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # The model, where it is made from scratch.
    hidden: int = Field(128, ge=8)
    layers: int = Field(4, ge=0)
    heads: int = Field(4, ge=1)
    vocabulary: int = Field(8_192, ge=300)
    post_tokens: int = Field(128, ge=8)
    """Longer texts are cut when the package encodes them."""
    dimensions: tuple[int, ...] = (32, 64, 128)
    """The loss is the mean over vectors cut to each of these; the package's vectors have the largest. A start from a
    package keeps the package's dimensions."""
    pooling: PoolingMode = "mean"
    """`last`: a text's vector is its last token's. A start from a package keeps the package's pooling."""
    templates: TemplateSettings | None = None
    """None: texts alone where member_form is named; else `nearline train` takes what the events carry
    (`trainer.default_prompts`). A start from a package keeps the package's templates."""
    member_form: Literal["mean", "prompt", "auto"] | None = None
    """`prompt`: profile and history are one prompt. `auto`: both are trained on an inner split, and the better one is
    taken. None: `mean`, or that of the package it starts from; where templates is None too, `nearline train` takes
    `auto`."""
    member_tokens: int = Field(512, ge=8)
    """Of the form `prompt`: longer histories lose their oldest entries."""
    history: int = Field(50, ge=1)
    """How many of its newest actions a member is made of."""
    member_vectors: MemberVectorsSettings | None = None
    """Members get a vector for each of their interests. None: one vector, or as the package has it from which training
    starts. Nothing of the training depends on it."""

    # Where it starts from a package or a Hugging Face folder.
    lora_rank: int = Field(0, ge=0)
    """0: all weights learn. Otherwise adapters of this rank learn beside the layers' matrices, and the embeddings of
    the special tokens."""

    # What a batch holds.
    train_tokens: int | None = Field(None, ge=8)
    """Of a longer text training sees the start. None: as many tokens as the package encodes."""
    token_dropout: float | None = Field(None, ge=0, lt=1)
    """The share of a text's tokens that a step does not see; each step drops others. It prevents overfitting, and the
    same number of tokens holds more posts. None: 0.5 where the model is made from scratch, 0 where it starts from a
    package, which learned from whole texts."""
    batch_tokens: int = Field(8_192, ge=256)
    pass_tokens: int | None = Field(None, ge=64)
    """About how many tokens one forward pass has at most. A batch is divided into as many passes as it takes, on a CPU
    into the same number for each thread. None: on a CPU 2,048, which its caches hold; on a GPU a whole batch, or with
    cached_gradients as many as its memory holds."""
    group: int = Field(8, ge=2)
    """The posts of one member in a batch: each is to be found by the mean of the others."""
    nearby: int = Field(24, ge=2)
    """A group is drawn from this many posts that the member acted on one after the other."""
    era: int = Field(4_000, ge=1)
    """The groups of a batch are drawn from this many successive actions, because posts of the same time are hard
    negatives."""
    negatives: int = Field(2, ge=0)
    """How many posts each group gets that the member did not act on: posts that it was shown, or of the same time."""
    author_share: float = Field(0.25, ge=0, le=1)
    """The share of groups whose posts one author wrote."""
    profile_only: float = Field(0.15, ge=0, lt=1)
    """Where members are learned from as they were: how often one that has a profile is seen without its history."""
    recency: float = Field(2.0, ge=1)
    """1: all times are equally likely; 2: a time is as likely as the number of actions before it."""
    main: float = Field(1.0, ge=0)
    """The weight of the main task: who acted on what. 0: it is left out, and only `tasks` are learned."""
    tasks: dict[TaskName, PositiveFloat] = Field({}, validate_default=True)
    """Auxiliary tasks beside the main one (`trainer.data.auxiliary_tasks`), each with a weight: how many tokens it gets
    for each token of a task of weight 1, as the main task is. A batch is of one task. A weight on the loss would not
    save time: a task with a small weight would cost as many tokens as one with a large weight. Where the settings name
    none, and neither templates nor a member form, `nearline train` takes search if the posts have titles."""

    @field_validator("tasks")
    @classmethod
    def _has_a_task(cls, tasks: dict[TaskName, float], info: ValidationInfo) -> dict[TaskName, float]:
        if info.data.get("main") == 0 and not tasks:
            raise ValueError("main is 0, and no other task is named; name one of interest, storyline, tag and search")
        return tasks

    # The steps.
    loss: Literal["infonce", "bce"] = "infonce"
    temperature: float = Field(0.05, gt=0)
    rate: float | None = Field(None, gt=0)
    embedding_rate: float | None = Field(None, gt=0)
    """None: as suits the start (`trainer.plan`)."""
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.05, ge=0, le=1)
    """The share of all steps in which the rate rises."""
    checkpoint_steps: int = Field(100, ge=1)

    # The device. What is None is chosen for it by `trainer.device_use`, and recorded.
    precision: Literal["fp32", "bf16"] | None = None
    """bf16: products and attention in bf16 over weights in fp32. None: bf16 on a GPU that has it."""
    gradient_checkpointing: bool | None = None
    """The inside of each layer is computed again for its gradients instead of being kept: a third more time, and far
    less memory. None: on a GPU where a batch would not fit otherwise."""
    cached_gradients: bool | None = None
    """GradCache: a batch is divided into passes, all of whose posts are negatives of each other, and each pass is
    computed again for its gradients. It gives the gradients of the whole batch, in the memory of a pass, for a third
    more time. None: on a GPU where a batch would not fit otherwise."""
    deterministic: bool = True
    """On a GPU: the same steps give the same bytes, also after a kill. False is quicker; then attention's gradients are
    added in any order. On a CPU the bytes are always the same."""

    # How long it trains.
    evaluate_tokens: int | None = Field(None, ge=1)
    """Early stopping: before the training itself, one on the earlier part of the events is measured on the later part,
    each time after so many tokens. The training then takes as many tokens as gave the best model. None: it takes all
    tokens that it may."""
    patience: int = Field(4, ge=1)
    """After so many measurements without a better one the training on the inner split ends."""
    inner_holdout: float = Field(0.15, gt=0, lt=1)
    """The share of the actions before the cut that the inner split measures on."""


def read_settings(file: Path | None) -> TrainSettings:
    """From a TOML file; None: the defaults. Raises BadStart."""
    if file is None:
        return TrainSettings()
    try:
        return TrainSettings.model_validate(tomllib.loads(file.read_text()))
    except OSError as error:
        raise BadStart(f"the configuration {file} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadStart(f"the configuration {file} is not TOML: {error}") from error
    except ValidationError as error:
        raise BadStart(_sentence(error, file)) from None


def _sentence(error: ValidationError, file: Path) -> str:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"] if part != "[key]")
    if first["type"] == "extra_forbidden":
        groups: dict[Any, Any] = {"templates": TemplateSettings, "member_vectors": MemberVectorsSettings}
        known: Any = groups.get(first["loc"][0], TrainSettings)
        return f"{name} in {file} is no setting; there are: {', '.join(known.model_fields)}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{name} in {file} is wrong: {message[:1].lower()}{message[1:]}"
