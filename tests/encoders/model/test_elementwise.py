"""The eager operations and the formulas for the compiler give the same numbers."""

import shutil
from pathlib import Path

import pytest
import torch
import torch._inductor.config
import torch.nn.functional as F
from transformers.models.llama.configuration_llama import LlamaConfig

from encoders.model import elementwise
from encoders.model.elementwise import ElementwiseOps

EAGER = elementwise.choose_ops(LlamaConfig(), torch.device("cpu"), compiled=False)
FORMULAS = ElementwiseOps(
    elementwise._rms_norm_formula,
    lambda heads, rotary: elementwise._rotate_formula(heads, torch.view_as_real(rotary)),
    elementwise._swiglu_formula,
)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-7)])
def test_both_ways_give_the_same(dtype: torch.dtype, tolerance: float) -> None:
    check_same(FORMULAS, dtype, tolerance)


def check_same(others: ElementwiseOps, dtype: torch.dtype, tolerance: float) -> None:
    """As eager."""
    torch.manual_seed(0)
    hidden, heads, gate_up = (torch.randn(*shape).to(dtype) for shape in ((30, 64), (30, 6, 16), (30, 48)))
    rotary = torch.polar(torch.ones(30, 1, 8), torch.randn(30, 1, 8))
    pairs = [
        (ops.rms_norm(hidden, 1e-5), ops.rotate(heads.clone(), rotary), ops.swiglu(gate_up.clone(), F.silu))
        for ops in (EAGER, others)
    ]
    for eager, formula in zip(*pairs, strict=True):
        assert eager.dtype == formula.dtype == dtype
        torch.testing.assert_close(eager, formula, rtol=tolerance, atol=tolerance)


def test_a_norm_has_length_one_for_each_number() -> None:
    normed = EAGER.rms_norm(torch.randn(5, 64) * 100, 1e-6)
    assert normed.square().mean(1) == pytest.approx(torch.ones(5), abs=1e-5)


def test_a_norm_in_bf16_rounds_once() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(200, 64).bfloat16()
    exact = EAGER.rms_norm(hidden.float(), 1e-6)
    torch.testing.assert_close(EAGER.rms_norm(hidden, 1e-6).float(), exact, rtol=2**-8, atol=0)


def test_a_rotation_keeps_lengths_and_rotates_by_its_angle() -> None:
    heads = torch.zeros(2, 1, 4)
    heads[:, 0, 2] = 1.0
    quarter = torch.polar(torch.ones(2, 1, 2), torch.tensor([[[0.0, 0.0]], [[0.0, torch.pi / 2]]]))
    rotated = EAGER.rotate(heads, quarter)
    assert rotated[0, 0].tolist() == [0, 0, 1, 0]
    assert rotated[1, 0] == pytest.approx(torch.tensor([0.0, 0.0, 0.0, 1.0]), abs=1e-6)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")  # the compiler of torch 2.11 uses it
def test_the_compiler_takes_the_formulas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled for a CPU here. In use they are compiled for a GPU; a CPU has the kernels."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    # Without worker processes that would outlive the test, without trying out this processor, which takes 15 s, and
    # without precompiled headers: these are left in the temporary folder whatever the variable says, 150 MB of them.
    changes = {"compile_threads": 1, "cpp.vec_isa_ok": True, "cpp_cache_precompile_headers": False}
    with torch._inductor.config.patch(changes):
        check_same(elementwise._torch_compiled_ops(), torch.float32, 1e-6)
    assert len(list(tmp_path.rglob("*.so"))) >= 3, "one for each operation"
