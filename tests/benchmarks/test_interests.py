"""Whether both of two interests are found is measured rightly, with vectors that are put where they should be."""

import numpy as np

from benchmarks.kit.ablations.interests import (
    BEST,
    CHANCE,
    ONE,
    SEVERAL,
    TrueInterests,
    interest_figures,
    mean_answers,
    measure_answers,
)
from benchmarks.kit.ablations.task import LiveTask
from encoders.package.manifest import MemberVectorsForm
from schemas.embeddings import Vector
from schemas.ids import MemberId, Micros
from tests.kit.data.contexts import post_context
from trainer.evaluation.package_vectors import MemberVectors, WeightedVector

PER_SUBJECT, OTHERS = 40, 600
"""Posts of each subject, and posts between both. A mean of the subjects is nearest to the latter."""


def near(*axes: int, spread: float = 0.0) -> Vector:
    vector = np.zeros(8, np.float32)
    vector[list(axes)] = 1
    vector[7] = spread
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def world() -> tuple[MemberVectors, np.ndarray, LiveTask, TrueInterests]:
    """Of a member who acted on posts of both subjects, and of one who acted on those of the first."""
    of_each = [[near(axis, spread=0.3 + number / 100) for number in range(PER_SUBJECT)] for axis in (0, 1)]
    others = [near(0, 1, spread=number / 1000) for number in range(OTHERS)]
    posts_CD = np.stack([*of_each[0], *of_each[1], *others])
    both: list[WeightedVector] = [(near(axis, spread=0.1 * number), 1.0) for axis in (0, 1) for number in range(3)]
    one: list[WeightedVector] = [(near(0, spread=0.1 * number), 1.0) for number in range(3)]
    subjects_C = np.repeat([0, 1, 2], [PER_SUBJECT, PER_SUBJECT, OTHERS])
    left_out_MC = np.zeros((2, len(posts_CD)), dtype=bool)
    left_out_MC[:, :3] = True
    of_interest_MIC = np.stack([subjects_C == subject for subject in (0, 1)])[None] & ~left_out_MC[:, None, :]
    posts = [post_context("text", post_id=f"p{number:03}") for number in range(len(posts_CD))]
    task = LiveTask(
        Micros(0),
        posts,
        [MemberId("m0"), MemberId("m1")],
        [[PER_SUBJECT + 10], [10]],
        [30, 3],
        left_out_MC,
        np.zeros(2, dtype=bool),
        np.zeros(left_out_MC.shape),
    )
    truth = TrueInterests(of_interest_MIC, np.array([True, False]), np.array([True, False]))
    return MemberVectors([both, one], [both, one], MemberVectorsForm()), posts_CD, task, truth


def test_several_vectors_find_both_interests_and_a_mean_finds_what_lies_between() -> None:
    members, posts_CD, task, truth = world()
    answers = measure_answers(members, posts_CD, task, truth)
    one, several, chance = (answers[how] for how in (ONE, SEVERAL, CHANCE))
    assert (one.vectors.tolist(), several.vectors.tolist()) == ([1, 1], [3, 1])
    assert (one.fewer[0], one.found_both[0], one.found_clearly[0]) == (0, 0, 0)
    assert (several.fewer[0], several.found_both[0], several.found_clearly[0]) == (BEST // 4, 1, 1), (
        "a quarter of the best is about each, and half is what the one vector finds"
    )
    assert chance.fewer[0] < BEST / 8
    assert (one.recall_500.tolist(), several.recall_500.tolist()) == ([0, 1], [1, 1])


def test_the_figures_say_who_found_both_and_what_recall_became() -> None:
    members, posts_CD, task, truth = world()
    answers = measure_answers(members, posts_CD, task, truth)
    figures = {figure.name: figure for figure in interest_figures(task, truth, mean_answers([answers, answers]))}
    found = "both interests in the best 50"
    acted = "members with two interests who acted on both (1)"
    assert (figures[f"{found}: {SEVERAL}, {acted}"].value, figures[f"{found}: {SEVERAL}, {acted}"].bound) == (1, 0.9)
    assert (figures[f"{found}: {ONE}, {acted}"].value, figures[f"{found}: {ONE}, {acted}"].bound) == (0, None)
    better = figures["Recall@500, several vectors better, history 20+"]
    assert (better.value, better.bound) == (1, 0.05)
    same = figures["Recall@500, several vectors ÷ one, shorter history"]
    assert (same.value, same.bound) == (1, 0.99)
