"""The quality gate: a package may follow the serving one only if it finds more, and not by chance. It must also find
more than what one could have for nothing: words in common, the untrained start, and any model that the publisher names.

Owns that question and its bound. The figures are made in `evaluation`; `registry` stores the answer.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from encoders.package.manifest import MANIFEST_FILE
from encoders.package.model_package import ModelPackage
from schemas.ids import Micros
from schemas.times import from_rfc3339, to_rfc3339
from trainer.data.feed import Feed
from trainer.errors import BadEvents, NotBetter
from trainer.evaluation.evaluation import Evaluation
from trainer.evaluation.rivals import RECALL_AT, rival, rivals_for_nothing
from trainer.evaluation.task import evaluation_task
from trainer.evaluation.untrained import NOT_AT_HAND, untrained_start

_MIN_SHARE_BETTER: Final = 0.95
_HOLDOUT: Final = 0.15
"""For packages that do not say until when they were trained."""
_FEWEST_POSTS: Final = 100
"""Fewer say nothing about which words occur together."""


def compare(
    package: ModelPackage,
    serving: ModelPackage | None,
    feed: Feed,
    folders: Sequence[Path] = (),
    *,
    device: str = "auto",
) -> dict[str, Any]:
    """Recall@100 of the package and of its rivals over actions newer than what any of the packages among them was
    trained on. Without a serving package the first rival is popularity. `folders`: see `Evaluation.folder`. Raises
    NotBetter, BadEvents, BadBaseline and PackageError."""
    baselines = [ModelPackage.load(folder) for folder in folders if (folder / MANIFEST_FILE).exists()]
    cut_us = _cut(feed, [package, *([] if serving is None else [serving]), *baselines])
    evaluation = Evaluation(feed, evaluation_task(feed, cut_us))
    first = evaluation.popularity() if serving is None else evaluation.as_served(serving, device=device)
    measured = evaluation.as_served(package, device=device)
    with TemporaryDirectory(prefix="nearline-untrained-") as folder:
        untrained = untrained_start(package, feed, _start_cut(package, feed, cut_us), Path(folder) / "package")
        for_nothing = rivals_for_nothing(evaluation, measured, untrained, device=device)
        rivals = [rival(evaluation, measured, first), *for_nothing]
    rivals += [rival(evaluation, measured, evaluation.folder(path, device=device)) for path in folders]
    recalls = evaluation.recalls(measured, RECALL_AT)
    strongest = min(rivals, key=lambda each: each.share_better)
    if strongest.share_better < _MIN_SHARE_BETTER:
        raise NotBetter(
            f"Recall@{RECALL_AT} is {recalls.mean():.3f} and that of {strongest.system} is {strongest.recall:.3f}: "
            f"better in {strongest.share_better:.0%} of the resamples, and {_MIN_SHARE_BETTER:.0%} are asked for; "
            "train more, or say why with --force REASON"
        )
    return {
        "against": first.result.system,
        "from": to_rfc3339(cut_us),
        "members": len(recalls),
        "recall_at": RECALL_AT,
        "recall": float(recalls.mean()),
        "recall_before": rivals[0].recall,
        "share_better": rivals[0].share_better,
        "rivals": msgspec.to_builtins(rivals[1:]),
        **({"untrained_not_measured": NOT_AT_HAND} if untrained is None else {}),
    }


def _cut(feed: Feed, packages: list[ModelPackage]) -> Micros:
    """Until when the last of the packages was trained."""
    known = [until_us for package in packages if (until_us := _trained_until(package)) is not None]
    cut_us = max(known) if known else feed.cut(_HOLDOUT)
    if not any(positive.at_us >= cut_us for positive in feed.positives):
        raise BadEvents(
            f"no action is newer than {to_rfc3339(cut_us)}, until when a package was trained; give newer events"
        )
    return cut_us


def _start_cut(package: ModelPackage, feed: Feed, cut_us: Micros) -> Micros:
    """Until when the untrained start knows posts: as long as the package's training did, not the others'. `cut_us`
    where the events begin later than that."""
    until_us = _trained_until(package)
    if until_us is None or sum(post.created_at_us < until_us for post in feed.posts.values()) < _FEWEST_POSTS:
        return cut_us
    return until_us


def _trained_until(package: ModelPackage) -> Micros | None:
    """None: it does not say."""
    until = package.manifest.training.get("until")
    return from_rfc3339(until) if isinstance(until, str) else None
