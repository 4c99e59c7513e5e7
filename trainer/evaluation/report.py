"""The report of an evaluation as JSON: all figures, and how surely one system is better than another."""

from collections.abc import Mapping, Sequence

import msgspec

from schemas.times import to_rfc3339
from trainer.evaluation.evaluation import Evaluation, Measured
from trainer.evaluation.popularity_correlation import Correlation
from trainer.evaluation.ranker_feature import RankerGain
from trainer.evaluation.ranking_metrics import CUTOFFS, share_better
from trainer.evaluation.task_figures import TaskFigures


def report(
    evaluation: Evaluation,
    results: Sequence[Measured],
    correlations: Mapping[str, Sequence[Correlation]] | None = None,
    gains: Mapping[str, RankerGain] | None = None,
    tasks: Mapping[str, Sequence[TaskFigures]] | None = None,
) -> bytes:
    """`share_better`: at each k, in what share of the resamples a system's recall is above another system's."""
    main = [measured for measured in results if measured.result.is_main]
    fields = {
        "cut": to_rfc3339(evaluation.task.cut_us),
        "candidates": len(evaluation.task.candidates),
        "members": len(evaluation.rows),
        "results": [measured.result for measured in results],
        "share_better": {str(k): _share_better(evaluation, main, k) for k in CUTOFFS},
        "popularity_and_score": correlations or {},
        "as_a_feature": gains or {},
        "tasks": tasks or {},
    }
    return msgspec.json.format(msgspec.json.encode(fields), indent=1) + b"\n"


def _share_better(evaluation: Evaluation, main: Sequence[Measured], k: int) -> dict[str, dict[str, float]]:
    """By system, and then by its rival."""
    recalls = [(_label(measured), evaluation.recalls(measured, k)) for measured in main]
    return {
        label: {
            rival_label: share_better(values, rival_values)
            for rival, (rival_label, rival_values) in enumerate(recalls)
            if rival != system
        }
        for system, (label, values) in enumerate(recalls)
    }


def _label(measured: Measured) -> str:
    return f"{measured.result.system} {measured.result.history}"
