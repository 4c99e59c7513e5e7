"""What training is told, checked when it is read."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError

from encoders.package.manifest import PoolingMode
from trainer.errors import BadStart

TaskName = Literal["title_body", "same_subject", "same_tag"]


class TrainSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    # The model, where it is made from nothing.
    hidden: int = Field(128, ge=8)
    layers: int = Field(4, ge=0)
    heads: int = Field(4, ge=1)
    vocabulary: int = Field(8_192, ge=300)
    post_tokens: int = Field(128, ge=8)
    """Longer texts are cut when the package encodes them."""
    dimensions: tuple[int, ...] = (32, 64, 128)
    """The loss is the mean over vectors cut to each; the package's are of the largest. A start from a package keeps
    the package's."""

    pooling: PoolingMode = "mean"
    """`last`: a text's vector is that of its last token. A start from a package keeps the package's."""

    # Where it starts from a package or a Hugging Face folder.
    lora_rank: int = Field(0, ge=0)
    """0: all weights learn. Else adapters of this rank beside the layers' matrices, and the special tokens."""

    # What a batch holds.
    train_tokens: int = Field(128, ge=8)
    """Training sees the start of longer texts."""
    token_dropout: float | None = Field(None, ge=0, lt=1)
    """Share of a text's tokens, others each time, that a step does not see: against overfitting, and more posts for the
    same tokens. None: half of them where the model is made from nothing, none where it starts from a package, which
    learned from whole texts."""
    batch_tokens: int = Field(8_192, ge=256)
    pass_tokens: int = Field(2_048, ge=64)
    """Of one forward pass, at most about; more would leave a CPU's caches. The batch is as many passes as it takes, on
    a CPU as many for each thread."""
    group: int = Field(8, ge=2)
    """Posts of one member: each is to be found by the mean of the others."""
    nearby: int = Field(24, ge=2)
    """A group is drawn from so many posts that the member acted on one after the other."""
    era: int = Field(4_000, ge=1)
    """The groups of a batch are from so many actions that follow one another: posts of one time are hard negatives."""
    negatives: int = Field(2, ge=0)
    """For each group: posts shown to the member, or of its time, and not acted on."""
    author_share: float = Field(0.25, ge=0, le=1)
    """Groups of posts that one author wrote."""
    recency: float = Field(2.0, ge=1)
    """1: all dates alike; 2: a date is drawn in proportion to how far the feed was then."""
    tasks: dict[TaskName, PositiveFloat] = {}
    """Auxiliary tasks beside the main one (`trainer.data.auxiliary_tasks`), each with a weight: how many tokens it gets
    for each token of the main task. A batch is of one task. A weight on the loss would not save time: a task with a
    small weight would cost as many tokens as one with a large weight."""

    # The steps.
    loss: Literal["infonce", "bce"] = "infonce"
    temperature: float = Field(0.05, gt=0)
    rate: float = Field(2e-3, gt=0)
    embedding_rate: float = Field(6e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.05, ge=0, le=1)
    """Share of all steps."""
    checkpoint_steps: int = Field(100, ge=1)


def read_settings(file: Path | None) -> TrainSettings:
    """Of a TOML file. Raises BadStart."""
    if file is None:
        return TrainSettings()
    try:
        return TrainSettings.model_validate(tomllib.loads(file.read_text()))
    except OSError as error:
        raise BadStart(f"the configuration {file} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadStart(f"the configuration {file} is not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise BadStart(
                f"{name} in {file} is no setting; there are: {', '.join(TrainSettings.model_fields)}"
            ) from None
        raise BadStart(f"{name} in {file} is wrong: {first['msg'][:1].lower()}{first['msg'][1:]}") from None
