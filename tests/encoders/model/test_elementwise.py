"""By hand and as formulas for the compiler: the same numbers."""

import shutil
from pathlib import Path

import pytest
import torch
import torch._inductor.config
import torch.nn.functional as F
from transformers.models.llama.configuration_llama import LlamaConfig

from encoders.model import elementwise as steps
from encoders.model.elementwise import Steps

BY_HAND = steps.choose_steps(LlamaConfig(), torch.device("cpu"), compiled=False)
FORMULAS = Steps(
    steps._normed_formula,
    lambda heads, turns: steps._turned_formula(heads, torch.view_as_real(turns)),
    steps._gated_formula,
)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-7)])
def test_both_ways_give_the_same(dtype: torch.dtype, tolerance: float) -> None:
    check_same(FORMULAS, dtype, tolerance)


def check_same(others: Steps, dtype: torch.dtype, tolerance: float) -> None:
    """As by hand."""
    torch.manual_seed(0)
    hidden, heads, gate_up = (torch.randn(*shape).to(dtype) for shape in ((30, 64), (30, 6, 16), (30, 48)))
    turns = torch.polar(torch.ones(30, 1, 8), torch.randn(30, 1, 8))
    pairs = [
        (one.normed(hidden, 1e-5), one.turned(heads.clone(), turns), one.gated(gate_up.clone(), F.silu))
        for one in (BY_HAND, others)
    ]
    for by_hand, formula in zip(*pairs, strict=True):
        assert by_hand.dtype == formula.dtype == dtype
        torch.testing.assert_close(by_hand, formula, rtol=tolerance, atol=tolerance)


def test_a_norm_has_length_one_for_each_number() -> None:
    normed = BY_HAND.normed(torch.randn(5, 64) * 100, 1e-6)
    assert normed.square().mean(1) == pytest.approx(torch.ones(5), abs=1e-5)


def test_a_norm_in_bf16_rounds_once() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(200, 64).bfloat16()
    exact = BY_HAND.normed(hidden.float(), 1e-6)
    torch.testing.assert_close(BY_HAND.normed(hidden, 1e-6).float(), exact, rtol=2**-8, atol=0)


def test_a_turn_keeps_lengths_and_turns_by_its_angle() -> None:
    heads = torch.zeros(2, 1, 4)
    heads[:, 0, 2] = 1.0
    quarter = torch.polar(torch.ones(2, 1, 2), torch.tensor([[[0.0, 0.0]], [[0.0, torch.pi / 2]]]))
    turned = BY_HAND.turned(heads, quarter)
    assert turned[0, 0].tolist() == [0, 0, 1, 0]
    assert turned[1, 0] == pytest.approx(torch.tensor([0.0, 0.0, 0.0, 1.0]), abs=1e-6)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_the_compiler_takes_the_formulas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here for a CPU, which has kernels; they are used on a GPU."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    # No process that stays; and the compiler is taken at its word about this processor: trying it takes 15 s.
    with torch._inductor.config.patch({"compile_threads": 1, "cpp.vec_isa_ok": True}):
        check_same(steps._by_compiler(), torch.float32, 1e-6)
    assert len(list(tmp_path.rglob("*.so"))) >= 3, "one for each step"
