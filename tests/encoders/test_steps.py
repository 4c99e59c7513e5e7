"""By hand and as formulas for the compiler: the same numbers."""

import pytest
import torch
import torch.nn.functional as F

from encoders import steps
from encoders.steps import Steps

BY_HAND = steps.choose_steps(compiled=False)
FORMULAS = Steps(steps._normed_formula, steps._turned_formula, steps._gated_formula)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_both_ways_give_the_same(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    hidden, heads, gate_up = (torch.randn(*shape).to(dtype) for shape in ((30, 64), (30, 6, 16), (30, 48)))
    turns = torch.polar(torch.ones(30, 1, 8), torch.randn(30, 1, 8))
    pairs = [
        (one.normed(hidden, 1e-5), one.turned(heads, turns), one.gated(gate_up.clone(), F.silu))
        for one in (BY_HAND, FORMULAS)
    ]
    for by_hand, formula in zip(*pairs, strict=True):
        assert by_hand.dtype == formula.dtype == dtype
        torch.testing.assert_close(by_hand, formula, rtol=tolerance, atol=tolerance)


def test_a_norm_has_length_one_for_each_number() -> None:
    normed = BY_HAND.normed(torch.randn(5, 64) * 100, 1e-6)
    assert normed.square().mean(1) == pytest.approx(torch.ones(5), abs=1e-5)


def test_a_turn_keeps_lengths_and_turns_by_its_angle() -> None:
    heads = torch.zeros(2, 1, 4)
    heads[:, 0, 2] = 1.0
    quarter = torch.polar(torch.ones(2, 1, 2), torch.tensor([[[0.0, 0.0]], [[0.0, torch.pi / 2]]]))
    turned = BY_HAND.turned(heads, quarter)
    assert turned[0, 0].tolist() == [0, 0, 1, 0]
    assert turned[1, 0] == pytest.approx(torch.tensor([0.0, 0.0, 0.0, 1.0]), abs=1e-6)
