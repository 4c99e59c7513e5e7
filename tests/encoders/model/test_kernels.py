"""The kernels and the eager operations give the same numbers."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.llama.configuration_llama import LlamaConfig

from encoders.encoder import Encoder
from encoders.errors import EncodingFailed
from encoders.model.attention import KVCache, Packing, packed_attention
from encoders.model.elementwise import choose_ops
from encoders.model.kernels import Heads, Kernels, load_kernels
from encoders.model.layers import PackedLayer
from encoders.package.manifest import PostTemplate, Precision, Templates
from encoders.package.model_package import ModelPackage
from tests.kit.packages import WORDS, make_tiny_package
from tests.kit.reference_model import one_by_one, worst_distance

CPU = torch.device("cpu")
EAGER = choose_ops(LlamaConfig(), CPU, compiled=False)
LENGTHS = [40, 17, 17, 16, 7, 6, 5, 2, 1]
QUERIES, KEYS, SIZE = 4, 2, 64

PROMISED: dict[Precision, float] = {"fp32": 1e-6, "bf16": 3e-3}
"""1 - cosine to the same weights in fp64."""

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
both = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2**-8)])
"""In bf16 the kernels count in float32 and round once."""


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    return load_kernels()


@pytest.fixture
def no_kernels_yet() -> Iterator[None]:
    load_kernels.cache_clear()
    yield
    load_kernels.cache_clear()


def numbers(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def attended(kernels: Kernels | None, qkv: Tensor, lengths: list[int], rows: int, prefix: KVCache | None) -> Tensor:
    """By the kernel, or by the eager operations of a layer."""
    packing = Packing(lengths, CPU, rows=rows, prefix=prefix)
    rotary = torch.polar(torch.ones(rows, 1, SIZE // 2), torch.linspace(0, 9, rows * SIZE // 2).view(rows, 1, -1))
    if kernels is not None:
        return kernels.attend(qkv.clone(), rotary, packing, Heads(0, QUERIES, SIZE**-0.5))
    rotated = EAGER.rotate(qkv[:, : QUERIES + KEYS].clone(), rotary)
    sides = (rotated[:, :QUERIES], rotated[:, QUERIES:], qkv[:, QUERIES + KEYS :])
    query, key, value = (side.transpose(0, 1).unsqueeze(0) for side in sides)
    module = torch.nn.Module()
    module.layer_idx = 0  # type: ignore[assignment]
    output, _ = packed_attention(module, query, key, value, None, packing=packing, scaling=SIZE**-0.5)
    return output[0].flatten(1)


@both
def test_rms_norm_and_swiglu(kernels: Kernels, dtype: torch.dtype, tolerance: float) -> None:
    hidden = numbers(dtype, 7, 96) * 30
    expected = EAGER.rms_norm(hidden.float(), 1e-5)
    torch.testing.assert_close(kernels.rms_norm(hidden, 1e-5).float(), expected, rtol=tolerance, atol=2e-6)
    gate_up = numbers(dtype, 7, 192) * 30
    expected = EAGER.swiglu(gate_up.float(), F.silu)
    torch.testing.assert_close(kernels.swiglu(gate_up).float(), expected, rtol=tolerance, atol=2e-6)


@both
@pytest.mark.parametrize("prefix_tokens", [0, 1, 16, 37])
def test_attention_of_all_lengths(kernels: Kernels, dtype: torch.dtype, tolerance: float, prefix_tokens: int) -> None:
    """Also for rows that belong to no prompt. Twice: the second run finds the memory of the first."""
    rows = sum(LENGTHS) + 3
    qkv = numbers(dtype, rows, QUERIES + 2 * KEYS, SIZE)
    key, value = numbers(dtype, 2, 1, KEYS, max(prefix_tokens, 1), SIZE)
    prefix = [(key, value)] if prefix_tokens else None
    expected = attended(None, qkv.float(), LENGTHS, rows, prefix and [(key.float(), value.float())])
    for _ in range(2):
        output = attended(kernels, qkv, LENGTHS, rows, prefix)
        torch.testing.assert_close(output.float(), expected, rtol=tolerance, atol=2e-6)


@both
def test_a_token_sees_no_other_prompt_and_nothing_later(kernels: Kernels, dtype: torch.dtype, tolerance: float) -> None:
    rows = sum(LENGTHS)
    qkv = numbers(dtype, rows, QUERIES + 2 * KEYS, SIZE)
    before = attended(kernels, qkv, LENGTHS, rows, None)
    qkv[30:] += 1.0  # the end of the first prompt, and all others
    after = attended(kernels, qkv, LENGTHS, rows, None)
    assert torch.equal(before[:30], after[:30])
    assert (before[30:] != after[30:]).any(1).all()
    del tolerance


@both
def test_a_nan_or_infinity_stays_in_its_prompt(kernels: Kernels, dtype: torch.dtype, tolerance: float) -> None:
    """So that this text is refused and its neighbours are not."""
    for bad in (float("nan"), float("inf")):
        hidden = numbers(dtype, 3, 64)
        hidden[1, 5] = bad
        assert kernels.rms_norm(hidden, 1e-5).isfinite().all(1).tolist() == [True, False, True]
        gate_up = numbers(dtype, 3, 64)
        gate_up[1, 37] = bad
        assert kernels.swiglu(gate_up).isfinite().all(1).tolist() == [True, False, True]
        qkv = numbers(dtype, 30, QUERIES + 2 * KEYS, SIZE)
        qkv[10:20] = bad
        for _ in range(2):
            finite = attended(kernels, qkv, [10, 10, 10], 30, None).isfinite().all(1)
            assert finite.tolist() == [True] * 10 + [False] * 10 + [True] * 10
    del tolerance


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_encoder_with_kernels_gives_the_same_vectors(tmp_path: Path, precision: Precision) -> None:
    """With and without a shared prefix."""
    texts = [*WORDS, "a", " ".join(WORDS)]
    templates = Templates(PostTemplate(instruction="say what it is about"))
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    folder = make_tiny_package(tmp_path / "tiny", hidden=128, precision=precision, templates=templates, **heads).folder
    plain, compiled = (Encoder.load(folder, device="cpu", compiled=compiled) for compiled in (False, True))
    layer = compiled._model.forward.model.layers[0]
    assert isinstance(layer, PackedLayer)
    assert layer._ops.kernels is not None
    prompts = plain.prompts(texts)
    exact = one_by_one(plain.package, prompts, "mean")
    for share in (True, False):
        compiled_vectors, plain_vectors = (
            encoder.encode_texts(texts, share_prefix=share) for encoder in (compiled, plain)
        )
        assert worst_distance(compiled_vectors, exact) < PROMISED[precision]
        assert worst_distance(plain_vectors, exact) < PROMISED[precision]
        assert (
            worst_distance(compiled_vectors, [torch.tensor(vector) for vector in plain_vectors]) < PROMISED[precision]
        )


def test_sizes_that_fit_no_kernel_stay_eager(tmp_path: Path) -> None:
    package = make_tiny_package(tmp_path / "tiny", hidden=24)
    plain, compiled = (Encoder.load(package.folder, device="cpu", compiled=compiled) for compiled in (False, True))
    compiled_vectors, plain_vectors = (np.stack(encoder.encode_texts(WORDS)) for encoder in (compiled, plain))
    assert compiled_vectors == pytest.approx(plain_vectors, abs=1e-6)


def test_without_a_compiler_one_sentence_says_what_to_do(
    package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_kernels_yet: None
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EncodingFailed, match=r"needs a C\+\+ compiler .* or set compile = false"):
        Encoder.load(package.folder, device="cpu", compiled=True)
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\necho 'no such processor' >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setenv("CXX", str(failing))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(
        EncodingFailed,
        match=r"failing cannot compile encoders/model/kernels.cpp: no such processor; set compile = false",
    ):
        Encoder.load(package.folder, device="cpu", compiled=True)


def test_a_folder_from_which_no_program_may_run_is_one_sentence(
    package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_kernels_yet: None
) -> None:
    """The loader refuses what this compiler writes, as it does in a folder that is mounted noexec."""
    writes_text = tmp_path / "writes-text"
    writes_text.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho text > "$2"\n')
    writes_text.chmod(0o755)
    monkeypatch.setenv("CXX", str(writes_text))
    sentence = r"kernels cannot be loaded: .* \(noexec\), set TMPDIR to one where it may, or compile = false$"
    with pytest.raises(EncodingFailed, match=sentence):
        Encoder.load(package.folder, device="cpu", compiled=True)
