"""By hand and as formulas for the compiler: the same numbers."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._inductor.config
import torch.nn.functional as F

from encoders import steps
from encoders.encoder import Encoder
from encoders.packages import ModelPackage
from encoders.steps import Steps
from tests.packages import WORDS

BY_HAND = steps.choose_steps(compiled=False)
FORMULAS = Steps(
    steps._normed_formula,
    lambda heads, turns: steps._turned_formula(heads, torch.view_as_real(turns)),
    steps._gated_formula,
)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_both_ways_give_the_same(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    hidden, heads, gate_up = (torch.randn(*shape).to(dtype) for shape in ((30, 64), (30, 6, 16), (30, 48)))
    turns = torch.polar(torch.ones(30, 1, 8), torch.randn(30, 1, 8))
    pairs = [
        (one.normed(hidden, 1e-5), one.turned(heads.clone(), turns), one.gated(gate_up.clone(), F.silu))
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


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_encoder_gives_the_same_vectors(
    package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [*WORDS, "a", " ".join(WORDS)]
    plain = np.stack(Encoder.load(package.folder, device="cpu").encode_texts(texts))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    # No process that stays; and the compiler is taken at its word about this processor: trying it takes 15 s.
    with torch._inductor.config.patch({"compile_threads": 1, "cpp.vec_isa_ok": True}):
        encoder = Encoder.load(package.folder, device="cpu", compiled=True)
        encoder.warm_up()
        compiled = np.stack(encoder.encode_texts(texts))
    assert len(list(tmp_path.rglob("*.so"))) >= 3, "one for each step"
    assert compiled == pytest.approx(plain, abs=1e-6)
