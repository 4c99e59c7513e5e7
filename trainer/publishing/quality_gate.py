"""The quality gate: a package may follow the serving one only if it finds more, and not by chance.

Owns that question and its bound. The figures are made in `evaluation`; `registry` stores the answer.
"""

from typing import Any, Final

from encoders.package.model_package import ModelPackage
from schemas.ids import Micros
from schemas.times import from_rfc3339, to_rfc3339
from trainer.data.feed import Feed
from trainer.errors import BadEvents, NotBetter
from trainer.evaluation.evaluation import Evaluation, Measured
from trainer.evaluation.ranking_metrics import share_better
from trainer.evaluation.task import evaluation_task

_K: Final = 100
_MIN_SHARE_BETTER: Final = 0.95
_HOLDOUT: Final = 0.15
"""For packages that do not say until when they were trained."""


def compare(package: ModelPackage, serving: ModelPackage | None, feed: Feed) -> dict[str, Any]:
    """Recall@100 of both over actions newer than what either was trained on. Without a serving package the rival is
    popularity. Raises NotBetter and BadEvents."""
    cut_us = _cut(feed, [package, serving] if serving is not None else [package])
    evaluation = Evaluation(feed, evaluation_task(feed, cut_us))
    measured, rival = _as_served(evaluation, package), _as_served(evaluation, serving)
    recalls, rival_recalls = evaluation.recalls(measured, _K), evaluation.recalls(rival, _K)
    share = share_better(recalls, rival_recalls)
    if share < _MIN_SHARE_BETTER:
        raise NotBetter(
            f"Recall@{_K} is {recalls.mean():.3f} and that of {rival.result.system} is {rival_recalls.mean():.3f}: "
            f"better in {share:.0%} of the resamples, and {_MIN_SHARE_BETTER:.0%} are asked for; train more, or say "
            "why with --force REASON"
        )
    return {
        "against": rival.result.system,
        "from": to_rfc3339(cut_us),
        "members": len(recalls),
        "recall_at": _K,
        "recall": float(recalls.mean()),
        "recall_before": float(rival_recalls.mean()),
        "share_better": share,
    }


def _cut(feed: Feed, packages: list[ModelPackage]) -> Micros:
    """Until when the last of the packages was trained."""
    trained_until = [
        from_rfc3339(until) for package in packages if isinstance(until := package.manifest.training.get("until"), str)
    ]
    cut_us = max(trained_until) if trained_until else feed.cut(_HOLDOUT)
    if not any(positive.at_us >= cut_us for positive in feed.positives):
        raise BadEvents(
            f"no action is newer than {to_rfc3339(cut_us)}, until when a package was trained; give newer events"
        )
    return cut_us


def _as_served(evaluation: Evaluation, package: ModelPackage | None) -> Measured:
    return evaluation.popularity() if package is None else evaluation.as_served(package)
