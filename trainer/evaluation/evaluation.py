"""Measures packages and baselines on one task: recall, NDCG, intervals; by history, by dimension, with own posts.

Owns what is compared with what. The formulas are in `ranks`, the vectors in `vectors`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct
from threadpoolctl import threadpool_limits

from encoders.package.model_package import ModelPackage
from schemas.contexts import MemberContext
from schemas.times import to_rfc3339
from trainer.data.feed import Feed, Task, rows_at
from trainer.evaluation import baselines
from trainer.evaluation.package_vectors import FormName, Matrix, PackageVectors, cut, form_name
from trainer.evaluation.popularity_correlation import Correlation, probe
from trainer.evaluation.ranking_metrics import CUTOFFS, Ranks, interval, ndcg, ranks_of, recall, share_better

LENGTHS: Final = (("0", 0, 0), ("1-4", 1, 4), ("5-19", 5, 19), ("20+", 20, 10**9))
"""Of histories, in actions before the cut."""
_MEASURED: Final = "protocol"


class Figures(Struct, frozen=True):
    """Of one system over one group of members."""

    members: int
    recall: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    ndcg: float


class Result(Struct, frozen=True):
    """`history`: `acted` alone, or with the member's own posts (`wrote`). `groups`: the protocol's members, and every
    member with a target by the length of its history."""

    system: str
    history: str
    dimension: int | None
    form: FormName | None
    """Of a package's members."""
    is_main: bool
    """False: a package's vectors cut to fewer or more numbers than the package says, or with the other form."""
    groups: dict[str, Figures]


class Measured(NamedTuple):
    """A result, with the ranks that it was made of: of the task's members in order."""

    result: Result
    ranks: Ranks


class Contexts(NamedTuple):
    """Every member with a target, as the pipeline knew it just before the cut."""

    acted: list[MemberContext]
    wrote: list[MemberContext]


def contexts_of(feed: Feed, task: Task) -> Contexts:
    return Contexts(*(_contexts(feed, task, wrote=wrote) for wrote in (False, True)))


def _contexts(feed: Feed, task: Task, *, wrote: bool) -> list[MemberContext]:
    rows = rows_at(feed, task.cut_us, wrote=wrote)
    return [rows.context(member_id, task.cut_us) for member_id in task.targets]


class Evaluation:
    """One task over one feed; each system is ranked when it is asked for."""

    def __init__(self, feed: Feed, task: Task) -> None:
        self.task = task
        self._feed = feed
        self._contexts = contexts_of(feed, task)
        self._targets = list(task.targets.values())
        self._lengths = [len(task.acted[member_id]) for member_id in task.targets]
        measured = set(task.members)
        self.rows = [row for row, member_id in enumerate(task.targets) if member_id in measured]
        """Where the protocol's members are among the task's."""

    def package(self, package: ModelPackage, *, both_forms: bool = False, device: str = "auto") -> Iterator[Measured]:
        """With both histories at the package's own dimension, and at the others with what was acted on; then, if
        asked for, with the member form that the package does not use, so that it can be seen what that would give."""
        name, form = str(package.generation), form_name(package.member_form)
        vectors = PackageVectors(package, device=device)
        posts = vectors.posts(self.task.candidates)
        for history, contexts in zip(("acted", "wrote"), self._contexts, strict=True):
            members = vectors.members(contexts)
            for dimension in sorted(package.manifest.dimensions, reverse=True):
                if history == "acted" or dimension == package.dimension:
                    scores = _scores(members.cut(dimension), cut(posts, dimension))
                    is_main = dimension == package.dimension
                    yield self._measured(name, history, scores, dimension, form, is_main=is_main)
        if both_forms:
            form, dimension = "prompt" if form == "mean" else "mean", package.dimension
            vectors = PackageVectors(package, device=device, form=form)
            posts = cut(posts, dimension)  # the form of members changes nothing for them
            for history, contexts in zip(("acted", "wrote"), self._contexts, strict=True):
                scores = _scores(vectors.members(contexts).cut(dimension), posts)
                yield self._measured(name, history, scores, dimension, form, is_main=False)

    def probe(self, package: ModelPackage, *, device: str = "auto") -> list[Correlation]:
        """See `probe.py`; over the protocol's members, with the history that the pipeline would give them."""
        members = [self._contexts.wrote[row] for row in self.rows]
        return probe(PackageVectors(package, device=device), package, self._feed, self.task.cut_us, members)

    def as_served(self, package: ModelPackage) -> Measured:
        """With the history that the pipeline would give it."""
        return next(one for one in self.package(package) if one.result.is_main and one.result.history == "wrote")

    def baselines(self) -> Iterator[Measured]:
        """TF-IDF over whole texts of what was acted on, over titles with both histories, BM25, popularity, random."""
        fitted = [post.text for post in self._feed.posts.values() if post.created_at_us < self.task.cut_us]
        candidates = baselines.whole(self.task.candidates)
        acted = [baselines.texts(self._feed, self.task.acted[member_id]) for member_id in self.task.targets]
        yield self._measured("tf-idf", "acted", baselines.tfidf(candidates, acted, fitted))
        for history, contexts in zip(("acted", "wrote"), self._contexts, strict=True):
            own = [baselines.titles([entry.text for entry in context.history]) for context in contexts]
            scores = baselines.tfidf(baselines.titles(candidates), own, baselines.titles(fitted))
            yield self._measured("tf-idf titles", history, scores)
        yield self._measured("bm25", "acted", baselines.bm25(candidates, acted))
        yield self._measured("popularity", "acted", baselines.popularity(self._feed, self.task))
        yield self._measured("random", "acted", baselines.random(self.task))

    def popularity(self) -> Measured:
        return self._measured("popularity", "acted", baselines.popularity(self._feed, self.task))

    def curve(self, measured: Measured, ks: Sequence[int]) -> list[float]:
        """Recall of the protocol's members at every k."""
        ranks = [measured.ranks[row] for row in self.rows]
        return [float(recall(ranks, k).mean()) for k in ks]

    def recalls(self, measured: Measured, k: int) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """Of each of the protocol's members."""
        return recall([measured.ranks[row] for row in self.rows], k)

    def _measured(
        self,
        system: str,
        history: str,
        scores: Any,
        dimension: int | None = None,
        form: FormName | None = None,
        *,
        is_main: bool = True,
    ) -> Measured:
        ranks = ranks_of(scores, self._targets)
        groups = {_MEASURED: _figures([ranks[row] for row in self.rows])}
        for name, least, most in LENGTHS:
            rows = [row for row, length in enumerate(self._lengths) if least <= length <= most]
            if rows:
                groups[name] = _figures([ranks[row] for row in rows])
        return Measured(Result(system, history, dimension, form, is_main, groups), ranks)


def _scores(members_MD: Matrix, posts_CD: Matrix) -> Matrix:
    """(M, C), the same whatever number of threads numpy's BLAS has: the figures are part of a package."""
    with threadpool_limits(1, "blas"):
        scores_MC: Matrix = members_MD @ posts_CD.T
        return scores_MC


def _figures(ranks: Ranks) -> Figures:
    recalls = {str(k): recall(ranks, k) for k in CUTOFFS}
    return Figures(
        members=len(ranks),
        recall={k: float(values.mean()) for k, values in recalls.items()},
        intervals={k: interval(values) for k, values in recalls.items()},
        ndcg=float(ndcg(ranks).mean()),
    )


def report(
    evaluation: Evaluation, found: Sequence[Measured], probes: Mapping[str, Sequence[Correlation]] | None = None
) -> bytes:
    """JSON of all figures, and in what share of the resamples a system finds more than another at each k."""
    task = evaluation.task
    better = {
        str(k): {
            _label(ours): {
                _label(theirs): share_better(evaluation.recalls(ours, k), evaluation.recalls(theirs, k))
                for theirs in found
                if theirs is not ours and theirs.result.is_main
            }
            for ours in found
            if ours.result.is_main
        }
        for k in CUTOFFS
    }
    whole = {
        "cut": to_rfc3339(task.cut_us),
        "candidates": len(task.candidates),
        "members": len(evaluation.rows),
        "results": [one.result for one in found],
        "share_better": better,
        "popularity_and_score": probes or {},
    }
    return msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n"


def _label(one: Measured) -> str:
    return f"{one.result.system} {one.result.history}"
