import numpy as np
import pytest

from encoders.package.manifest import MeanForm, MemberTemplate
from encoders.prompt.member_mean import WeightedText, weighted_mean, weighted_texts
from tests.kit.data.contexts import history_entry, member_context

TEMPLATE = MemberTemplate()


def test_weights_are_of_the_action_and_of_the_age() -> None:
    form = MeanForm(2.0, {"wrote": 3.0, "click": 0.0}, half_life_s=3600.0)
    context = member_context(
        history_entry("a", "wrote", 2), history_entry("b", "click"), history_entry("c", "like", 1), headline="dev"
    )
    assert weighted_texts(form, TEMPLATE, context) == [
        WeightedText("dev", 2.0),
        WeightedText("a", 0.75),
        WeightedText("c", 0.5),
    ]


def test_only_the_newest_entries_count() -> None:
    context = member_context(*(history_entry(text) for text in "abcd"))
    assert [part.text for part in weighted_texts(MeanForm(max_entries=2), TEMPLATE, context)] == ["c", "d"]


def test_empty_texts_are_left_out() -> None:
    assert weighted_texts(MeanForm(), TEMPLATE, member_context(history_entry("  "), headline="")) == []


def test_the_mean_has_length_one() -> None:
    x, y = np.eye(2, dtype=np.float32)
    mean = weighted_mean([x, y], [3.0, 4.0])
    assert mean is not None
    assert mean.tolist() == pytest.approx([0.6, 0.8])
    assert mean.dtype == np.float32


def test_vectors_that_cancel_out_give_none() -> None:
    x = np.array([1, 0], dtype=np.float32)
    assert weighted_mean([x, -x], [1.0, 1.0]) is None
