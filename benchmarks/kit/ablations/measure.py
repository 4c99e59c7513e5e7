"""Trains an arm by the trainer's own steps, and measures it. Shapes: M members, C candidates, D dimension."""

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from msgspec import UNSET

from benchmarks.kit.ablations.arms import BASE, Arm, Scale, settings_of
from benchmarks.kit.ablations.interests import (
    Answers,
    TrueInterests,
    mean_answers,
    measure_answers,
    with_several_vectors,
)
from benchmarks.kit.ablations.task import POPULARITY, LiveTask, member_contexts
from encoders.errors import Unencodable
from encoders.package.model_package import TOKENIZER_FILE, ModelPackage
from encoders.package.quantiles import percentile
from encoders.package_writer import write_package
from encoders.prompt.member_parts import member_parts
from encoders.prompt.prompts import Prompts
from encoders.prompt.safe_tokenizer import SafeTokenizer
from nearline.demo.made_feed.shape import Numbers
from schemas.contexts import MemberContext
from trainer.data.dataset import TrainingData
from trainer.data.feed import Feed
from trainer.evaluation.package_vectors import Matrix, PackageVectors
from trainer.evaluation.ranking_metrics import recall
from trainer.plan import Plan
from trainer.preparation import planned_data, prepare, starting_point

ORACLE_AT: Final = 100


class Values(NamedTuple):
    """(M,) each, but for the last four."""

    recall_10: Numbers
    recall_100: Numbers
    oracle_share: Numbers
    """What the member would act on of the best 100, as a share of what it would of the best 100 that there are."""
    correlation: float
    """Of popularity, as a percentile, with the mean score, over the candidates; NaN: not measured, as of the two that
    have no model."""
    raw_correlation: float
    """The same of popularity as it was counted."""
    member_tokens: float
    """The mean length of what a member's vector is made of; NaN: there is no such vector."""
    trained_tokens: int


class Measuring:
    """Of all arms, on one feed and one task."""

    def __init__(
        self,
        feed: Feed,
        task: LiveTask,
        scale: Scale,
        tokens: int,
        folder: Path,
        *,
        interests: TrueInterests | None = None,
    ) -> None:
        """`interests`: the answers to several vectors a member are measured too, of the base's packages."""
        self._feed, self._task, self._scale, self._tokens, self._folder = feed, task, scale, tokens, folder
        self._best_M = task.expected(task.chances_MC.astype(np.float32), ORACLE_AT)
        self._shared: tuple[TrainingData, list[MemberContext]] | None = None
        self._interests = interests
        self._answers: list[dict[str, Answers]] = []

    def arm(self, arm: Arm, seeds: int) -> Values:
        """The mean over the seeds, for each member."""
        with arm.differs():
            data, contexts = self._data(arm)
            by_seed = [self._one(arm, seed, data, contexts) for seed in range(seeds)]
        return _mean(by_seed)

    def answers(self) -> dict[str, Answers]:
        """With one vector, with several and in random order; the mean over the base's seeds. Empty where these are not
        measured."""
        return mean_answers(self._answers) if self._answers else {}

    def popularity(self) -> Values:
        scores_C = self._task.popularity_C.astype(np.float32)
        return self._values(np.broadcast_to(scores_C, (len(self._task.members), len(scores_C))))

    def oracle(self) -> Values:
        return self._values(self._task.chances_MC.astype(np.float32))

    def _data(self, arm: Arm) -> tuple[TrainingData, list[MemberContext]]:
        """What is learned from, and the members that are measured. Replaying takes long, so arms share it."""
        if self._shared is not None and arm.shares_data:
            return self._shared
        made = planned_data(self._feed, self._plan(arm, 0)), member_contexts(self._feed, self._task)
        if arm.shares_data:
            self._shared = made
        return made

    def _plan(self, arm: Arm, seed: int) -> Plan:
        return Plan(self._task.cut_us, self._tokens, seed, settings_of(arm, self._scale), "ablation")

    def _one(self, arm: Arm, seed: int, data: TrainingData, contexts: Sequence[MemberContext]) -> Values:
        began = time.process_time()
        plan, work = self._plan(arm, seed), self._folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        start = starting_point(plan, data, work)
        prepared = prepare(start, data, plan, work)
        prepared.trainer.train()
        package = write_package(work / "package", start.manifest, start.trained_model(), start.tokenizer)
        if self._interests is not None and arm.name == BASE.name:
            package = with_several_vectors(package)
        values = self._of_package(package, contexts, prepared.seen["tokens"])
        print(
            f"{arm.name}, seed {seed}: Recall@10 {values.recall_10.mean():.4f}, @100 {values.recall_100.mean():.4f}, "
            f"share of the oracle {values.oracle_share.mean():.3f} ({time.process_time() - began:.0f} s of CPU)",
            flush=True,
        )
        shutil.rmtree(work)
        return values

    def _of_package(self, package: ModelPackage, contexts: Sequence[MemberContext], trained: int) -> Values:
        vectors = PackageVectors(package, device="cpu")
        posts_CD = vectors.posts(self._task.candidates)
        members = vectors.members(contexts)
        if self._interests is not None and package.manifest.member_vectors is not UNSET:
            self._answers.append(measure_answers(members, posts_CD, self._task, self._interests))
        members_MD = members.cut(package.dimension)
        scores_MC: Matrix = members_MD @ posts_CD.T
        table = package.manifest.quantiles[POPULARITY]
        percentiles_C = [percentile(table, count) for count in self._task.popularity_C]
        as_percentile, as_counted = (
            _correlation(np.asarray(numbers, dtype=np.float64), scores_MC.mean(0))
            for numbers in (percentiles_C, self._task.popularity_C)
        )
        return self._values(scores_MC, (as_percentile, as_counted), _mean_length(package, contexts), trained)

    def _values(
        self,
        scores_MC: Matrix,
        correlations: tuple[float, float] = (math.nan, math.nan),
        member_tokens: float = math.nan,
        trained: int = 0,
    ) -> Values:
        ranks = self._task.ranks(scores_MC)
        found_M = self._task.expected(scores_MC, ORACLE_AT)
        share_M = np.divide(found_M, self._best_M, out=np.zeros_like(found_M), where=self._best_M > 0)
        return Values(recall(ranks, 10), recall(ranks, 100), share_M, *correlations, member_tokens, trained)


def by_name(arms: Mapping[str, Values]) -> dict[str, dict[str, float]]:
    """The means, for the report as JSON, without what is not measured."""
    means = {
        name: {field: float(np.mean(value)) for field, value in values._asdict().items()}
        for name, values in arms.items()
    }
    return {
        name: {field: mean for field, mean in fields.items() if not math.isnan(mean)} for name, fields in means.items()
    }


def _mean(by_seed: Sequence[Values]) -> Values:
    return Values(*(np.mean(column, axis=0) for column in zip(*by_seed, strict=True)))  # type: ignore[arg-type]


def _correlation(numbers_C: Numbers, scores_C: Matrix) -> float:
    if len(set(numbers_C.tolist())) < 2 or not scores_C.std():
        return 0.0
    return float(np.corrcoef(numbers_C, scores_C)[0, 1])


def _mean_length(package: ModelPackage, contexts: Sequence[MemberContext]) -> float:
    tokenizer = SafeTokenizer(package.folder / TOKENIZER_FILE, package.manifest.special_tokens)
    members = member_parts(package.manifest, Prompts(package.manifest, tokenizer), contexts)
    lengths = [sum(len(part.prompt) for part in parts) for parts in members if not isinstance(parts, Unencodable)]
    return float(np.mean(lengths))
