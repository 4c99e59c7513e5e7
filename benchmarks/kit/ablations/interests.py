"""What members find with one vector, and with one for each of their interests beside it.

Vectors are made as the encode stage makes them, and the lists of several are combined as by the retriever. A made-up
feed says what each member cares for, and so whether both of two interests are found. Shapes: M members, I the two
interests, C candidates, K candidates of an answer.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from msgspec.structs import replace as with_fields

from benchmarks.kit.ablations.task import LiveTask, numbers_of, seconds_at
from benchmarks.kit.table import Figure
from encoders.interests import asked_vectors
from encoders.package.manifest import MemberVectorsForm
from encoders.package.model_package import ModelPackage
from indexer.tiers import Numbers as PostNumbers
from nearline.demo.made_feed.feed import MadeFeed
from nearline.demo.made_feed.shape import Flags, Ints, Numbers
from retriever.answer.combine import PartList, combine
from retriever.answer.merge import Merged, best_rows
from schemas.embeddings import Interest
from schemas.ids import PostId
from trainer.data.feed import Feed
from trainer.evaluation.package_vectors import Matrix, MemberVectors
from trainer.evaluation.ranking_metrics import recall, share_better

BEST: Final = 50
CLEARLY: Final = 5
"""An interest is found if one of the best posts is about it. That happens by chance too; so many seldom do."""
ACTIONS: Final = 2
"""So many posts of an interest a member has acted on, or what it acted on says nothing of it: one may be chance."""
_RECALL_AT: Final = 500
_NOT_WORSE: Final = 0.05
_WITHIN: Final = 0.99
_FORM: Final = MemberVectorsForm()

ONE: Final = "one vector"
SEVERAL: Final = "several vectors"
CHANCE: Final = "random order"


class TrueInterests(NamedTuple):
    of_interest_MIC: Flags
    """The posts about each of the member's two interests at the cut that it can read and may be answered."""
    has_two_M: Flags
    """Whether the member cares for two subjects, and at least CLEARLY posts of both are there."""
    acted_on_both_M: Flags
    """Whether, of these, it has acted on posts of both before the cut."""


class Answers(NamedTuple):
    """(M,) each."""

    recall_500: Numbers
    found_both: Numbers
    """Whether of the best 50 one at least is about each interest. Of members without two interests it says nothing."""
    found_clearly: Numbers
    """The same, CLEARLY at least."""
    fewer: Numbers
    """Of the best 50, how many are about the interest of which fewer are."""
    vectors: Numbers
    """How many vectors are asked with."""


def true_interests(made: MadeFeed, feed: Feed, task: LiveTask) -> TrueInterests:
    members_M, posts_C = numbers_of(task.members), numbers_of([post.post_id for post in task.candidates])
    at_s = np.full(len(members_M), seconds_at(made, task.cut_us))
    subjects_MI = made.people.subjects_at(members_M, at_s)
    may_MC = made.people.reads[members_M][:, made.posts.language[posts_C]] & ~task.left_out_MC
    of_interest_MIC = (subjects_MI[:, :, None] == made.posts.subject[posts_C]) & may_MC[:, None, :]
    has_two_M = (of_interest_MIC.sum(2) >= CLEARLY).all(1)
    acted_MI = _num_acted_on(made, feed, task, subjects_MI)
    return TrueInterests(of_interest_MIC, has_two_M, has_two_M & (acted_MI >= ACTIONS).all(1))


def _num_acted_on(made: MadeFeed, feed: Feed, task: LiveTask, subjects_MI: Ints) -> Ints:
    """(M, I): on how many posts of each interest the member has acted before the cut."""
    row_of = {member_id: row for row, member_id in enumerate(task.members)}
    acted = {
        (row_of[positive.member_id], positive.post_id)
        for positive in feed.positives
        if positive.at_us < task.cut_us and positive.member_id in row_of
    }
    rows = np.array([row for row, _ in acted], dtype=np.int64)
    subjects = made.posts.subject[numbers_of([post_id for _, post_id in acted])]
    num_MI = np.zeros_like(subjects_MI)
    np.add.at(num_MI, rows, subjects_MI[rows] == subjects[:, None])
    return num_MI


def with_several_vectors(package: ModelPackage) -> ModelPackage:
    """The same package, by whose settings members have several vectors. Nothing of its training depends on that."""
    return replace(package, manifest=with_fields(package.manifest, member_vectors=_FORM))


def measure_answers(
    members: MemberVectors, posts_CD: Matrix, task: LiveTask, truth: TrueInterests
) -> dict[str, Answers]:
    """`members`: of a package `with_several_vectors`."""
    dimension = posts_CD.shape[1]
    members_MD = members.cut(dimension)
    of_one = [[Interest(vector_D, 1.0)] for vector_D in members_MD]
    of_several = list(map(asked_vectors, members_MD, members.interests(dimension)))
    search = _Search(posts_CD, task)
    rng = np.random.default_rng(0)
    chance = [rng.permutation(np.flatnonzero(~hidden_C)) for hidden_C in task.left_out_MC]
    return {
        ONE: _measured(lambda row, k: search(of_one[row], row, k), task, truth, of_one),
        SEVERAL: _measured(lambda row, k: search(of_several[row], row, k), task, truth, of_several),
        CHANCE: _measured(lambda row, k: chance[row][:k], task, truth, [[]] * len(chance)),
    }


def mean_answers(by_seed: Sequence[dict[str, Answers]]) -> dict[str, Answers]:
    return {
        name: Answers(*(np.mean(column, axis=0) for column in zip(*(seed[name] for seed in by_seed), strict=True)))
        for name in by_seed[0]
    }


class _Search:
    """Answers as the retriever does, which asks for more of a vector's list where its part may be too short: here each
    list has as many as the answer."""

    def __init__(self, posts_CD: Matrix, task: LiveTask) -> None:
        self._posts_CD = posts_CD
        self._left_out_MC = task.left_out_MC
        self._ids = [post.post_id for post in task.candidates]

    def __call__(self, vectors: Sequence[Interest], row: int, k: int) -> Ints:
        """(K,)"""
        seen = np.flatnonzero(~self._left_out_MC[row]).astype(np.int32)
        lists = [PartList(self._list(vector_D, seen, k), share, k) for vector_D, share in vectors]
        return combine(lists, _FORM.merge, k, self._ids_of).merged.numbers_K.astype(np.int64)

    def _list(self, vector_D: Matrix, seen: PostNumbers, k: int) -> Merged:
        scores = self._posts_CD[seen] @ vector_D
        best = best_rows(seen, scores, k, self._ids_of)
        zeros = np.zeros(len(best))
        return Merged(seen[best], scores[best], zeros.astype(np.int64), zeros.astype(np.uint8), False, False)

    def _ids_of(self, numbers: PostNumbers) -> list[PostId]:
        return [self._ids[number] for number in numbers.tolist()]


def _measured(
    answer: Callable[[int, int], Ints], task: LiveTask, truth: TrueInterests, vectors: Sequence[Sequence[Interest]]
) -> Answers:
    """`answer`: of the member of a row, so many candidates."""
    rows = range(len(task.members))
    fewer_M = np.array([truth.of_interest_MIC[row][:, answer(row, BEST)].sum(1).min() for row in rows])
    ranks = [np.where(np.isin(task.targets[row], answer(row, _RECALL_AT)), 0, _RECALL_AT) for row in rows]
    return Answers(
        recall(ranks, _RECALL_AT),
        (fewer_M >= 1).astype(np.float64),
        (fewer_M >= CLEARLY).astype(np.float64),
        fewer_M.astype(np.float64),
        np.array([*map(len, vectors)], float),
    )


def interest_figures(task: LiveTask, truth: TrueInterests, answers: Mapping[str, Answers]) -> list[Figure]:
    """What has no bound is shown as it is. Groups without members are left out."""
    is_long_M = task.of_length("20+")
    return [
        *_found_both(answers, truth.acted_on_both_M, "members with two interests who acted on both", 0.9),
        *_found_both(answers, truth.has_two_M, "all members with two interests", None),
        *_recalls(answers, is_long_M, "history 20+", not_worse=_NOT_WORSE),
        *_recalls(answers, ~is_long_M, "shorter history", ratio=_WITHIN),
    ]


def _found_both(answers: Mapping[str, Answers], of_group_M: Flags, name: str, bound: float | None) -> Iterator[Figure]:
    for how, found in answers.items() if of_group_M.any() else ():
        of_group = Answers(*(values_M[of_group_M].mean() for values_M in found))
        who = f"{how}, {name} ({of_group_M.sum()})"
        asked = bound if how == SEVERAL else None
        yield Figure(f"both interests in the best {BEST}: {who}", float(of_group.found_both), asked)
        yield Figure(f"{CLEARLY} posts at least of each: {who}", float(of_group.found_clearly))
        yield Figure(f"posts of the rarer one: {who}", float(of_group.fewer))


def _recalls(
    answers: Mapping[str, Answers],
    of_group_M: Flags,
    name: str,
    *,
    not_worse: float | None = None,
    ratio: float | None = None,
) -> Iterator[Figure]:
    """`not_worse`, `ratio`: the bounds of this group."""
    if not of_group_M.any():
        return
    of_group = {how: found.recall_500[of_group_M] for how, found in answers.items()}
    for how, recalls in of_group.items():
        yield Figure(f"Recall@{_RECALL_AT}, {how}, {name} ({of_group_M.sum()})", float(recalls.mean()))
    yield Figure(f"vectors a member, {name}", float(answers[SEVERAL].vectors[of_group_M].mean()))
    one, several = of_group[ONE], of_group[SEVERAL]
    yield Figure(f"Recall@{_RECALL_AT}, several vectors better, {name}", share_better(several, one), not_worse)
    yield Figure(
        f"Recall@{_RECALL_AT}, several vectors ÷ one, {name}", float(several.mean() / max(one.mean(), 1e-9)), ratio
    )
