"""Whether a package may follow the one that is serving: only if it finds more, and not by chance.

Owns the question. The figures are made in `evaluation`.
"""

from typing import Any, Final

from encoders.package.model_package import ModelPackage
from schemas.ids import Micros
from schemas.times import from_rfc3339, to_rfc3339
from trainer.data.feed import Feed, task_at
from trainer.errors import BadEvents, NotBetter
from trainer.evaluation.evaluation import Evaluation, Measured
from trainer.evaluation.ranking_metrics import share_better

_K: Final = 100
_SURE: Final = 0.95
_HOLDOUT: Final = 0.15
"""For packages that do not say until when they were trained."""


def compare(package: ModelPackage, serving: ModelPackage | None, feed: Feed) -> dict[str, Any]:
    """Recall@100 of both over actions newer than what either was trained on. Raises NotBetter and BadEvents."""
    cut_us = _cut(feed, [package, serving] if serving is not None else [package])
    evaluation = Evaluation(feed, task_at(feed, cut_us))
    ours, theirs = _main(evaluation, package), _main(evaluation, serving)
    found, known = evaluation.recalls(ours, _K), evaluation.recalls(theirs, _K)
    share = share_better(found, known)
    verdict = {
        "against": theirs.result.system,
        "from": to_rfc3339(cut_us),
        "members": len(found),
        "recall_at": _K,
        "recall": float(found.mean()),
        "recall_before": float(known.mean()),
        "share_better": share,
    }
    if share < _SURE:
        raise NotBetter(
            f"Recall@{_K} is {found.mean():.3f} and that of {theirs.result.system} is {known.mean():.3f}: better in "
            f"{share:.0%} of the resamples, and {_SURE:.0%} are asked for; train more, or say why with --force REASON"
        )
    return verdict


def _cut(feed: Feed, packages: list[ModelPackage]) -> Micros:
    untils = [from_rfc3339(until) for one in packages if isinstance(until := one.manifest.training.get("until"), str)]
    cut_us = max(untils) if untils else feed.cut(_HOLDOUT)
    if not any(positive.at_us >= cut_us for positive in feed.positives):
        raise BadEvents(
            f"no action is newer than {to_rfc3339(cut_us)}, until when a package was trained; give newer events"
        )
    return cut_us


def _main(evaluation: Evaluation, package: ModelPackage | None) -> Measured:
    """As it would serve: with the member's own posts in its history."""
    if package is None:
        return evaluation.popularity()
    return evaluation.as_served(package)
