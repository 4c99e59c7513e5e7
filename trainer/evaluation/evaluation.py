"""Measures packages and baselines on one evaluation task: recall, NDCG and their intervals.

Owns what is compared with what: which histories, dimensions and member forms. The formulas are in `ranking_metrics`,
the vectors in `package_vectors`, the report of all figures in `report`.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from threadpoolctl import threadpool_limits

from encoders.package.manifest import MANIFEST_FILE, FormName, form_name
from encoders.package.model_package import ModelPackage
from schemas.contexts import MemberContext
from trainer.data.feed import Feed
from trainer.data.replay import replay_until
from trainer.evaluation import baselines
from trainer.evaluation.package_vectors import Matrix, MemberVectors, PackageVectors, cut
from trainer.evaluation.popularity_correlation import Correlation, popularity_correlations
from trainer.evaluation.ranker_feature import RankerGain, ranker_gain
from trainer.evaluation.ranking_metrics import CUTOFFS, Numbers, Ranks, interval, ndcg, ranks_of, recall
from trainer.evaluation.sentence_model import SentenceModel
from trainer.evaluation.task import EvaluationTask

_LENGTH_GROUPS: Final = (("0", 0, 0), ("1-4", 1, 4), ("5-19", 5, 19), ("20+", 20, 10**9))
"""Members by the number of their actions before the cut: the group's name, least and most."""
_PROTOCOL: Final = "protocol"
"""The group of the members that the protocol measures."""


class Figures(Struct, frozen=True):
    """Of one system over one group of members."""

    members: int
    recall: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    ndcg: float


class Result(Struct, frozen=True):
    """`history`: `acted` for the posts that a member acted on, `wrote` for these and the posts that it wrote.
    `groups`: the protocol's members, and all members with a target by the length of their history."""

    system: str
    history: str
    dimension: int | None
    form: FormName | None
    """The form of a package's members."""
    is_main: bool
    """False for a package whose vectors have another dimension or whose members have another form than it says."""
    groups: dict[str, Figures]


class Measured(NamedTuple):
    """A result and the ranks that it is made from, for the task's members in order."""

    result: Result
    ranks: Ranks


class Contexts(NamedTuple):
    """Every member with a target, as the pipeline knew it just before the cut, by the kind of history."""

    acted: list[MemberContext]
    wrote: list[MemberContext]


def contexts_of(feed: Feed, task: EvaluationTask) -> Contexts:
    return Contexts(*(_contexts(feed, task, wrote=wrote) for wrote in (False, True)))


def _contexts(feed: Feed, task: EvaluationTask, *, wrote: bool) -> list[MemberContext]:
    replay = replay_until(feed, task.cut_us, wrote=wrote)
    return [replay.context(member_id, task.cut_us) for member_id in task.targets]


class Evaluation:
    """One task over one feed. A system is measured when its method is called."""

    def __init__(self, feed: Feed, task: EvaluationTask) -> None:
        self.task = task
        self.feed = feed
        self._contexts = contexts_of(feed, task)
        self._targets = list(task.targets.values())
        self._lengths = [len(task.acted[member_id]) for member_id in task.targets]
        measured = set(task.members)
        self.rows = [row for row, member_id in enumerate(task.targets) if member_id in measured]
        """The indices of the protocol's members among the task's members."""

    def package(self, package: ModelPackage, *, both_forms: bool = False, device: str = "auto") -> Iterator[Measured]:
        """With both histories at the package's own dimension, and with `acted` at its other dimensions. `both_forms`:
        then also with the member form that the package does not use, to show what it would give."""
        name, form = str(package.generation), form_name(package.member_form)
        vectors = PackageVectors(package, device=device)
        posts_CD = vectors.posts(self.task.candidates)
        for history, contexts in zip(Contexts._fields, self._contexts, strict=True):
            members = vectors.members(contexts)
            for dimension in sorted(package.manifest.dimensions, reverse=True):
                is_main = dimension == package.dimension
                if history == "acted" or is_main:
                    scores_MC = _scores(members, cut(posts_CD, dimension))
                    yield self._measure(name, history, scores_MC, dimension, form, is_main=is_main)
        if both_forms:
            form, dimension = "prompt" if form == "mean" else "mean", package.dimension
            vectors = PackageVectors(package, device=device, form=form)
            posts_CD = cut(posts_CD, dimension)  # the members' form changes no post
            for history, contexts in zip(Contexts._fields, self._contexts, strict=True):
                scores_MC = _scores(vectors.members(contexts), posts_CD)
                yield self._measure(name, history, scores_MC, dimension, form, is_main=False)

    def popularity_correlations(self, package: ModelPackage, *, device: str = "auto") -> list[Correlation]:
        """See `popularity_correlation`. Over the protocol's members, with the history that the pipeline gives them."""
        members = [self._contexts.wrote[row] for row in self.rows]
        vectors = PackageVectors(package, device=device)
        return popularity_correlations(vectors, package, self.feed, self.task.cut_us, members)

    def ranker_gain(self, package: ModelPackage, *, device: str = "auto") -> RankerGain | None:
        """See `ranker_feature`."""
        return ranker_gain(self.feed, self.task.cut_us, package, device=device)

    def as_served(self, package: ModelPackage, *, name: str | None = None, device: str = "auto") -> Measured:
        """With the history that the pipeline gives its members. `name`: of the system; None: the generation."""
        measured = next(
            measured
            for measured in self.package(package, device=device)
            if measured.result.is_main and measured.result.history == "wrote"
        )
        return measured if name is None else measured._replace(result=replace(measured.result, system=name))

    def baselines(self) -> Iterator[Measured]:
        """TF-IDF over whole texts of what was acted on, TF-IDF over titles with both histories, BM25, popularity and
        random order."""
        yield self.tf_idf()
        candidates = baselines.titles(self._candidates)
        for history, contexts in zip(Contexts._fields, self._contexts, strict=True):
            histories = [baselines.titles([entry.text for entry in context.history]) for context in contexts]
            scores_MC = baselines.tfidf(candidates, histories, baselines.titles(self._texts_before))
            yield self._measure("tf-idf titles", history, scores_MC)
        yield self.bm25()
        yield self.popularity()
        yield self._measure("random", "acted", baselines.random(self.task))

    def tf_idf(self) -> Measured:
        """Over whole texts."""
        return self._measure("tf-idf", "acted", baselines.tfidf(self._candidates, self._acted, self._texts_before))

    def bm25(self) -> Measured:
        """Over whole texts."""
        return self._measure("bm25", "acted", baselines.bm25(self._candidates, self._acted))

    def popularity(self) -> Measured:
        return self._measure("popularity", "acted", baselines.popularity(self.feed, self.task))

    def folder(self, folder: Path, *, device: str = "auto") -> Measured:
        """A baseline: a package as it serves, or any other model of sentence-transformers. Of the latter a member is
        the mean of the last whole texts that it acted on, as with TF-IDF. Raises PackageError and BadBaseline."""
        if (folder / MANIFEST_FILE).exists():
            return self.as_served(ModelPackage.load(folder), device=device)
        model = SentenceModel(folder, device=device)
        texts = list(dict.fromkeys(text for history in self._acted for text in history))
        vectors = dict(zip(texts, model.encode(texts), strict=True))
        posts_CD = model.encode(self._candidates)
        members_MD = np.zeros((len(self._acted), posts_CD.shape[1]), dtype=np.float32)
        for row, history in enumerate(self._acted):
            if history:
                members_MD[row] = np.mean([vectors[text] for text in history], axis=0)
        return self._measure(
            folder.name,
            "acted",
            _scores(MemberVectors([[(vector_D, 1.0)] for vector_D in members_MD]), posts_CD),
            posts_CD.shape[1],
            "mean",
        )

    @cached_property
    def _candidates(self) -> list[str]:
        return [post.text for post in self.task.candidates]

    @cached_property
    def _texts_before(self) -> list[str]:
        """Of all posts that were created before the cut."""
        return [post.text for post in self.feed.posts.values() if post.created_at_us < self.task.cut_us]

    @cached_property
    def _acted(self) -> list[list[str]]:
        """For each member the last whole texts that it acted on."""
        return [baselines.last_texts(self.feed, self.task.acted[member_id]) for member_id in self.task.targets]

    def curve(self, measured: Measured, ks: Sequence[int]) -> list[float]:
        """The mean recall of the protocol's members at every k."""
        return [float(self.recalls(measured, k).mean()) for k in ks]

    def recalls(self, measured: Measured, k: int) -> Numbers:
        """The recall of each of the protocol's members."""
        return recall([measured.ranks[row] for row in self.rows], k)

    def _measure(
        self,
        system: str,
        history: str,
        scores_MC: Matrix,
        dimension: int | None = None,
        form: FormName | None = None,
        *,
        is_main: bool = True,
    ) -> Measured:
        ranks = ranks_of(scores_MC, self._targets)
        groups = {_PROTOCOL: _figures([ranks[row] for row in self.rows])}
        for name, least, most in _LENGTH_GROUPS:
            rows = [row for row, length in enumerate(self._lengths) if least <= length <= most]
            if rows:
                groups[name] = _figures([ranks[row] for row in rows])
        return Measured(Result(system, history, dimension, form, is_main, groups), ranks)


def _scores(members: MemberVectors, posts_CD: Matrix) -> Matrix:
    """(M, C). BLAS has one thread here, because with several it adds in another order: the figures are part of a
    package and must be the same on every machine."""
    with threadpool_limits(1, "blas"):
        return members.scores(posts_CD)


def _figures(ranks: Ranks) -> Figures:
    recalls = {str(k): recall(ranks, k) for k in CUTOFFS}
    return Figures(
        members=len(ranks),
        recall={k: float(values.mean()) for k, values in recalls.items()},
        intervals={k: interval(values) for k, values in recalls.items()},
        ndcg=float(ndcg(ranks).mean()),
    )
