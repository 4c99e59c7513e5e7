"""A package against its rivals, among them what one could have for nothing: words in common, and the untrained start.

Owns which these are and by what they are compared. Knows neither registry nor bound.
"""

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from encoders.package.model_package import ModelPackage
from trainer.evaluation.evaluation import Evaluation, Measured
from trainer.evaluation.ranking_metrics import share_better

RECALL_AT: Final = 100


class Rival(Struct, frozen=True):
    """What a package was compared with, over the same members."""

    system: str
    recall: float
    share_better: float
    """In what share of the resamples the package's recall is above this one's."""


def rivals_for_nothing(
    evaluation: Evaluation, measured: Measured, untrained: ModelPackage | None, *, device: str = "auto"
) -> Iterator[Rival]:
    """`untrained`: what the training began with; None: not at hand."""
    yield rival(evaluation, measured, evaluation.tf_idf())
    yield rival(evaluation, measured, evaluation.bm25())
    if untrained is not None:
        yield untrained_rival(evaluation, measured, untrained, device=device)


def untrained_rival(
    evaluation: Evaluation, measured: Measured, untrained: ModelPackage, *, device: str = "auto"
) -> Rival:
    """Raises EncoderError where the untrained start cannot be encoded with."""
    return rival(evaluation, measured, evaluation.as_served(untrained, name="untrained", device=device))


def rival(evaluation: Evaluation, measured: Measured, other: Measured) -> Rival:
    """How `measured` does against another system."""
    recalls, of_other = evaluation.recalls(measured, RECALL_AT), evaluation.recalls(other, RECALL_AT)
    return Rival(other.result.system, float(of_other.mean()), share_better(recalls, of_other))
