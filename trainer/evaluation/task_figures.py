"""How well a package does the auxiliary tasks on held out posts: Recall@100 and AUC of each.

In a task every part of a post looks for the other parts of the same label, among all parts of held out posts; in
`search` titles look for bodies. The parts are made as in training, without what gives the label. Owns the protocol;
knows no model. Shapes: Q parts that look, C parts that are looked for, D a dimension.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from encoders.package.model_package import ModelPackage
from schemas.contexts import PostContext
from schemas.ids import Micros
from trainer.data.auxiliary_tasks import TASKS, Part, task_rows
from trainer.data.feed import Feed
from trainer.data.rendering import part_context
from trainer.evaluation.package_vectors import Matrix, PackageVectors, cut
from trainer.evaluation.ranking_metrics import Numbers, interval
from trainer.settings import TaskName

CUTOFF: Final = 100
MOST_POSTS: Final = 5_000
"""The newest held out posts are taken. More would take a CPU long to encode, and say little more."""
MOST_QUERIES: Final = 1_000
"""The newest parts look."""

Labels = npt.NDArray[np.bool_]


class HeldOutTask(NamedTuple):
    """A task with at least one pair among the held out posts."""

    name: TaskName
    posts: list[PostContext]
    """(C,): what is looked for, each the rest of a post."""
    queries: list[str] | None
    """(Q,): the text queries that look. None: the last Q of the posts look, each for the others."""
    alike_QC: Labels
    """Whether it is what is looked for. A part is not its own answer."""
    counts_QC: Labels
    """False where a part would be compared with itself."""

    def with_shuffled_labels(self, seed: int = 0) -> "HeldOutTask":
        """The same parts, as if labels had nothing to do with them. A figure that is not chance then is wrong."""
        order = np.random.default_rng(seed).permutation(len(self.posts))
        return self._replace(alike_QC=self.alike_QC[:, order] & self.counts_QC)


class TaskFigures(Struct, frozen=True):
    task: TaskName
    queries: int
    candidates: int
    recall_100: float
    recall_interval: tuple[float, float]
    auc: float


class MeasuredTask(NamedTuple):
    figures: TaskFigures
    recalls: Numbers
    """(Q,): to compare two packages, look by look."""


def held_out_tasks(feed: Feed, cut_us: Micros) -> list[HeldOutTask]:
    """Those for which the newest posts from the cut on have anything."""
    held_out = [post for post in feed.posts.values() if post.created_at_us >= cut_us]
    posts = sorted(held_out, key=lambda post: post.created_at_us)[-MOST_POSTS:]
    tasks = (_search(posts) if name == "search" else _alike(name, posts) for name in TASKS)
    return [task for task in tasks if task is not None]


def measure_tasks(
    package: ModelPackage, tasks: Sequence[HeldOutTask], *, device: str = "auto", dimension: int | None = None
) -> list[MeasuredTask]:
    """See `task_vectors`."""
    vectors = task_vectors(package, tasks, device=device, dimension=dimension)
    return [measure(task, *of_task) for task, of_task in zip(tasks, vectors, strict=True)]


def task_vectors(
    package: ModelPackage, tasks: Sequence[HeldOutTask], *, device: str = "auto", dimension: int | None = None
) -> list[tuple[Matrix, Matrix]]:
    """For each task (Q, D) of what looks and (C, D) of what is looked for. `dimension`: to which vectors are cut; None:
    the package's own. Raises PackageError."""
    vectors = PackageVectors(package, device=device)
    size = dimension or package.dimension
    of_tasks = []
    for task in tasks:
        posts_CD = cut(vectors.posts(task.posts), size)
        queries_QD = (
            posts_CD[-len(task.alike_QC) :] if task.queries is None else cut(vectors.queries(task.queries), size)
        )
        of_tasks.append((queries_QD, posts_CD))
    return of_tasks


def measure(task: HeldOutTask, queries_QD: Matrix, posts_CD: Matrix) -> MeasuredTask:
    with threadpool_limits(1, "blas"):  # with several threads it adds in another order
        scores_QC = queries_QD @ posts_CD.T
    recalls, aucs = [], []
    for scores_C, alike_C, counts_C in zip(scores_QC, task.alike_QC, task.counts_QC, strict=True):
        if alike_C.any():
            recall, auc = _recall_and_auc(scores_C[counts_C], alike_C[counts_C])
            recalls.append(recall)
            aucs.append(auc)
    recalls_Q = np.array(recalls)
    figures = TaskFigures(
        task.name,
        len(recalls),
        len(task.posts),
        float(recalls_Q.mean()),
        interval(recalls_Q),
        float(np.nanmean(aucs)),
    )
    return MeasuredTask(figures, recalls_Q)


def _recall_and_auc(scores_C: npt.NDArray[np.float32], alike_C: Labels) -> tuple[float, float]:
    """AUC: how likely one that is alike has a higher score than one that is not; NaN where all are alike."""
    ranks_C = rankdata(scores_C)
    num_alike = int(alike_C.sum())
    num_others = len(alike_C) - num_alike
    best = np.argsort(-scores_C, kind="stable")[:CUTOFF]
    recall = float(alike_C[best].sum()) / min(CUTOFF, num_alike)
    above = float(ranks_C[alike_C].sum()) - num_alike * (num_alike + 1) / 2
    return recall, above / (num_alike * num_others) if num_others else float("nan")


def _alike(name: TaskName, posts: Sequence[PostContext]) -> HeldOutTask | None:
    """Two parts are alike if they have a label in common."""
    numbers: dict[tuple[Part, str], int] = {}
    contexts: list[PostContext] = []
    labels: list[tuple[int, str]] = []
    for row in task_rows(name, posts):
        context = part_context(posts[row.post], row.part)
        number = numbers.setdefault((row.part, "" if row.part.without_author else context.author_id), len(contexts))
        if number == len(contexts):
            contexts.append(context)
        labels.append((number, row.owner))
    columns = {label: column for column, label in enumerate(dict.fromkeys(label for _, label in labels))}
    has_label = np.zeros((len(contexts), len(columns)), dtype=np.float32)
    for number, label in labels:
        has_label[number, columns[label]] = 1
    first = max(0, len(contexts) - MOST_QUERIES)
    others_QC = ~np.eye(len(contexts), dtype=bool)[first:]
    alike_QC = (has_label[first:] @ has_label.T > 0) & others_QC
    return HeldOutTask(name, contexts, None, alike_QC, others_QC) if alike_QC.any() else None


def _search(posts: Sequence[PostContext]) -> HeldOutTask | None:
    rows = [*task_rows("search", posts)]
    queries = list(dict.fromkeys(row.owner for row in rows if row.part.is_query))[-MOST_QUERIES:]
    bodies = [row for row in rows if not row.part.is_query]
    if not bodies or not queries:
        return None
    contexts = [part_context(posts[row.post], row.part) for row in bodies]
    owners = np.array([row.owner for row in bodies], dtype=object)
    alike_QC = np.array([owners == query for query in queries], dtype=bool)
    return HeldOutTask("search", contexts, queries, alike_QC, np.ones_like(alike_QC))
