"""The settings of a training, checked when they are read."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError

from encoders.package.manifest import PoolingMode
from trainer.errors import BadStart

TaskName = Literal["title_body", "same_subject", "same_tag"]


class TrainSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

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

    # Where it starts from a package or a Hugging Face folder.
    lora_rank: int = Field(0, ge=0)
    """0: all weights learn. Otherwise adapters of this rank learn beside the layers' matrices, and the embeddings of
    the special tokens."""

    # What a batch holds.
    train_tokens: int = Field(128, ge=8)
    """Of a longer text training sees the start."""
    token_dropout: float | None = Field(None, ge=0, lt=1)
    """The share of a text's tokens that a step does not see; each step drops others. It prevents overfitting, and the
    same number of tokens holds more posts. None: 0.5 where the model is made from scratch, 0 where it starts from a
    package, which learned from whole texts."""
    batch_tokens: int = Field(8_192, ge=256)
    pass_tokens: int = Field(2_048, ge=64)
    """About how many tokens one forward pass has at most; more would leave a CPU's caches. A batch is divided into as
    many passes as it takes, on a CPU into the same number for each thread."""
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
    recency: float = Field(2.0, ge=1)
    """1: all times are equally likely; 2: a time is as likely as the number of actions before it."""
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
    """The share of all steps in which the rate rises."""
    checkpoint_steps: int = Field(100, ge=1)


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
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise BadStart(
                f"{name} in {file} is no setting; there are: {', '.join(TrainSettings.model_fields)}"
            ) from None
        raise BadStart(f"{name} in {file} is wrong: {first['msg'][:1].lower()}{first['msg'][1:]}") from None
