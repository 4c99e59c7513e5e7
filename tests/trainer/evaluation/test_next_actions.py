"""Which actions are measured, and with which context."""

from datetime import timedelta
from typing import Any, cast

import numpy as np
import pytest

from encoders.package.manifest import MemberVectorsForm
from schemas.contexts import MemberContext, PostContext
from schemas.ids import Micros
from schemas.times import to_micros
from tests.kit.data.events import activity, post_created, post_updated
from tests.kit.data.training_events import START, feed_of
from trainer.data.feed import Feed
from trainer.evaluation import next_actions as module
from trainer.evaluation.next_actions import MIN_ACTIONS_BEFORE, next_actions, recalls
from trainer.evaluation.package_vectors import MemberVectors

NUM = 12


def _hour(number: float) -> Micros:
    return to_micros(START + timedelta(hours=number))


def _feed() -> Feed:
    """m1 acts on each post half an hour after it came, and on the first ones twice."""
    sent = []
    for number in range(NUM):
        at = START + timedelta(hours=number)
        created = post_created(f"p{number}", f"text {number}", author_id="a", at=at)
        sent += [created, activity("m1", f"p{number}", at=at + timedelta(minutes=30))]
        if number > 8:
            sent.append(activity("m1", f"p{number - 8}", action="share", at=at + timedelta(minutes=40)))
            sent.append(post_updated(created, "edited", at=at + timedelta(minutes=50)))
    return feed_of(sent)


def test_each_action_comes_with_what_was_known_just_before_it() -> None:
    actions = next_actions(_feed(), Micros(0))
    posts = [actions.candidates[target].post_id for target in actions.targets]
    assert posts == [f"p{number}" for number in range(MIN_ACTIONS_BEFORE, NUM)], "each once, and none too early"
    for post_id, context in zip(posts, actions.contexts, strict=True):
        known = [str(entry.post_id) for entry in context.history]
        assert post_id not in known
        assert f"p{int(post_id[1:]) - 1}" in known
    assert actions.at_us == [_hour(number + 0.5) for number in range(MIN_ACTIONS_BEFORE, NUM)]


def test_only_posts_and_actions_after_the_training_count() -> None:
    actions = next_actions(_feed(), _hour(9))
    assert [post.post_id for post in actions.candidates] == ["p9", "p10", "p11"]
    assert actions.targets == [0, 1, 2]
    assert next_actions(_feed(), _hour(99)).targets == []


def test_the_newest_are_taken_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ACTIONS", 2)
    assert next_actions(_feed(), Micros(0)).at_us == [_hour(NUM - 1.5), _hour(NUM - 0.5)]
    monkeypatch.setattr(module, "MOST_POSTS", 1)
    newest = next_actions(_feed(), Micros(0))
    assert (newest.since_us, newest.targets, newest.most_candidates) == (_hour(NUM - 1), [0], 1)


class LaterIsNearer:
    """A package by which each post is nearer to all members than the posts before it."""

    def __init__(self, interests: int) -> None:
        self._acted = [(np.array(vector, np.float32), 1.0) for vector in ([1, 0], [0.8, 0.6])][:interests]

    def posts(self, contexts: list[PostContext]) -> np.ndarray:
        return np.array([[number, NUM] for number in range(len(contexts))], np.float32)

    def members(self, contexts: list[MemberContext]) -> MemberVectors:
        nearest = (np.array([1, 0], np.float32), 1.0)
        form = MemberVectorsForm(distance=0.1)
        return MemberVectors([[nearest] for _ in contexts], [self._acted for _ in contexts], form)


@pytest.mark.parametrize("interests", [0, 2])
def test_a_post_that_came_later_cannot_be_found_before(interests: int) -> None:
    actions = next_actions(_feed(), Micros(0))
    ranks = module.ranks_by_package(actions, cast(Any, LaterIsNearer(interests)), 2)
    assert [of_action.tolist() for of_action in ranks] == [[0]] * len(actions.targets)


def test_a_members_recall_is_the_mean_of_its_actions() -> None:
    actions = next_actions(_feed(), Micros(0))
    ranks = [np.array([rank]) for rank in range(len(actions.targets))]
    assert recalls(actions, ranks, 2).tolist() == [2 / len(ranks)]
