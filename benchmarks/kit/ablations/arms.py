"""The arms: each differs from the base in one thing.

Most are settings of the trainer. Two are none, because nobody should train so: raw numbers in prompts, and histories of
all that a member was shown. They change the pipeline's own functions for as long as an arm is trained and measured.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final, NamedTuple
from unittest import mock

import contexts.posts
import encoders.package.manifest
from contexts.settings import ContextRules
from encoders.prompt.prompts import Prompts
from schemas.hops import PostActivity
from trainer.settings import TrainSettings

NUMBERS: Final = ("age", "count.impression", "count.click", "count.like")
PROFILE: Final = ("headline", "skills", "industry", "language")
RULES: Final = ContextRules(history_text_chars=60)
"""Short entries, so that a history of many fits into a prompt that a CPU can train on."""


class Scale(NamedTuple):
    """Of the model and of a batch; the same for all arms."""

    hidden: int = 64
    layers: int = 2
    vocabulary: int = 4_096
    post_tokens: int = 48
    member_tokens: int = 256
    history: int = 12
    batch_tokens: int = 8_192
    era: int = 4_000


class Arm(NamedTuple):
    name: str
    settings: Mapping[str, Any] = {}
    differs: Callable[[], AbstractContextManager[None]] = nullcontext
    """What is changed while the arm is trained and measured."""
    shares_data: bool = True
    """Whether it learns from the same examples as the base."""


def settings_of(arm: Arm, scale: Scale) -> TrainSettings:
    base: dict[str, Any] = {
        **scale._asdict(),
        "heads": max(1, scale.hidden // 32),
        "dimensions": (scale.hidden,),
        "train_tokens": scale.post_tokens,
        "member_form": "prompt",
        "negatives": 2,
        "templates": _templates(NUMBERS),
    }
    return TrainSettings.model_validate(base | dict(arm.settings))


def _templates(numbers: tuple[str, ...]) -> dict[str, Any]:
    return {"post": ("language", *numbers, "text"), "profile": PROFILE, "history_ages": True}


@contextmanager
def raw_numbers() -> Iterator[None]:
    """Prompts hold the numbers themselves, as digits, where else they hold percentiles."""

    def digits(_prompts: Prompts, _field: str, number: float) -> str:
        return f"{number:.6g}"

    with mock.patch.object(Prompts, "_percentile", digits):
        yield


@contextmanager
def all_impressions() -> Iterator[None]:
    """Histories also hold what a member was shown, as entries of their own action. What is positive for the labels
    stays as it is: the trainer asks elsewhere."""
    is_positive, send = contexts.posts.is_positive, contexts.posts._send_to_history
    known = encoders.package.manifest.HISTORY_ACTIONS

    def is_kept(activity: PostActivity, rules: ContextRules) -> bool:
        return activity.action == "impression" or is_positive(activity, rules)

    def as_view(row: Any, member_id: Any, action: str, *rest: Any) -> Any:
        return send(row, member_id, "view" if action == "impression" else action, *rest)  # type: ignore[arg-type]

    with (
        mock.patch.object(contexts.posts, "is_positive", is_kept),
        mock.patch.object(contexts.posts, "_send_to_history", as_view),
        mock.patch.object(encoders.package.manifest, "HISTORY_ACTIONS", (*known, "view")),
    ):
        yield


BASE: Final = Arm("base")
RAW: Final = Arm("raw numbers", differs=raw_numbers)
NO_NUMBERS: Final = Arm("no numbers", {"templates": _templates(())})
CROSS_ENTROPY: Final = Arm("cross-entropy", {"loss": "bce"})
NO_NEGATIVES: Final = Arm("0 hard negatives", {"negatives": 0})
ONE_NEGATIVE: Final = Arm("1 hard negative", {"negatives": 1})
IMPRESSIONS: Final = Arm("all impressions", differs=all_impressions, shares_data=False)
MEAN_FORM: Final = Arm("member as mean", {"member_form": "mean"})
LAST: Final = Arm("last pooling", {"pooling": "last"})

PARTS: Final[dict[str, tuple[Arm, ...]]] = {
    "numbers": (RAW, NO_NUMBERS),
    "loss": (CROSS_ENTROPY, NO_NEGATIVES, ONE_NEGATIVE),
    "history": (IMPRESSIONS,),
    "form": (MEAN_FORM,),
    "interests": (),
    "pooling": (LAST,),
    "oracle": (),
}
"""The parts of the table, most important first, and the arms that each needs beside the base."""
