"""The attention of a GPU. A stand-in for torch's function computes it on the CPU; the arguments are those of torch."""

import inspect
from contextlib import AbstractContextManager, nullcontext
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import varlen
from torch.utils._python_dispatch import TorchDispatchMode

from encoders.encoder import Encoder
from encoders.errors import EncodingFailed
from encoders.model import attention, packed_forward
from encoders.model.attention import (
    FLASH,
    ONE_SPLIT,
    TORCHS_CHOICE,
    AttentionKernel,
    NumSplits,
    Packing,
    packed_attention,
)
from encoders.model.host_copies import Numbers
from encoders.model.layers import use_packed_layers
from encoders.model.loading import build_model, load_model, read_config
from encoders.model.packed_forward import PackedForward
from encoders.model.packed_model import PackedModel
from encoders.package.manifest import PoolingMode
from tests.kit.packages import make_tiny_package
from tests.kit.reference_model import one_by_one, worst_distance

CPU = torch.device("cpu")


def of_torch_2_11(  # noqa: PLR0917
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    return_aux: varlen.AuxRequest | None = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
) -> tuple[Tensor, Tensor]:
    """With the signature of torch 2.11."""
    assert query.shape[1] == key.shape[1] == value.shape[1]
    assert return_aux == varlen.AuxRequest(lse=True)
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert cu_seq_q[-1] == len(query)
    out, lse = [], []
    ends = zip(cu_seq_q.tolist()[1:], cu_seq_k.tolist()[1:], strict=True)
    first_query = first_key = 0
    for last_query, last_key in ends:
        assert last_query - first_query <= max_q
        assert last_key - first_key <= max_k
        keys, values = (tensor[first_key:last_key].transpose(0, 1) for tensor in (key, value))
        scores = query[first_query:last_query].transpose(0, 1) @ keys.mT * (scale or query.shape[2] ** -0.5)
        if window_size == (-1, 0):
            scores += torch.full(scores.shape[1:], -torch.inf).triu(1)
        out.append((scores.softmax(-1) @ values).transpose(0, 1))
        lse.append(scores.logsumexp(-1))
        first_query, first_key = last_query, last_key
    return torch.cat(out), torch.cat(lse, 1)


def of_this_torch(*args: Any, **options: Any) -> tuple[Tensor, Tensor]:
    """Takes what the installed function takes."""
    inspect.signature(INSTALLED).bind(*args, **options)
    query, key, value, *rest = args
    if options.pop("enable_gqa", False):
        key, value = (tensor.repeat_interleave(query.shape[1] // key.shape[1], 1) for tensor in (key, value))
    options.pop("num_splits", None)
    return of_torch_2_11(query, key, value, *rest, **options)


INSTALLED = varlen.varlen_attn
of_this_torch.__signature__ = inspect.signature(INSTALLED)  # type: ignore[attr-defined]


@pytest.fixture(params=[of_torch_2_11, of_this_torch])
def on_varlen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", request.param)
    monkeypatch.setattr(attention, "uses_varlen", lambda *_: True)


@pytest.mark.usefixtures("on_varlen")
@pytest.mark.parametrize("num_keys", [1, 2, 4])
def test_vectors_are_those_of_one_by_one(tmp_path: Path, num_keys: int) -> None:
    package = make_tiny_package(tmp_path / "p", num_key_value_heads=num_keys)
    rng = np.random.default_rng(3)
    endings = [rng.integers(0, 256, length).tolist() for length in (1, 1, 7, 7, 30, 70)]
    model = PackedModel(load_model(package.folder, package.manifest, CPU), package.manifest, CPU, 64)
    assert worst_distance(model.run(endings).vectors, one_by_one(package, endings, "mean")) < 1e-6
    prefix = list(range(60, 80))
    prompts = [prefix + ending for ending in endings]
    vectors = model.run(prompts, prefix).vectors
    assert model.stats.tokens == 2 * sum(map(len, endings))
    assert worst_distance(vectors, one_by_one(package, prompts, "mean")) < 1e-6


def make_hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch thinks so. It asks for nothing else of a GPU before it calls a kernel."""
    monkeypatch.setattr(varlen, "_cudnn_version_and_major_capability", lambda _: (99_999, 9), raising=False)
    monkeypatch.setattr(varlen, "_should_use_cudnn", lambda _: True)


@pytest.mark.skipif(not hasattr(varlen, "_select_backend"), reason="this torch has no choice of kernels")
@pytest.mark.parametrize(
    ("num_splits", "kernel"),
    [
        (FLASH, "_FLASH_ATTENTION_BACKEND"),
        (ONE_SPLIT, "_FLASH_ATTENTION_BACKEND"),
        (TORCHS_CHOICE, "_CUDNN_ATTENTION_BACKEND"),
    ],
)
def test_where_torch_would_take_cudnn_it_takes_flash(
    monkeypatch: pytest.MonkeyPatch, num_splits: NumSplits, kernel: str
) -> None:
    make_hopper(monkeypatch)
    lengths = [200, 100]
    with FakeTensorMode(allow_non_fake_inputs=True), Kernels() as kernels:
        query, key, value = (
            torch.empty(1, heads, sum(lengths), 64, dtype=torch.bfloat16, device="cuda") for heads in (8, 2, 2)
        )
        starts = torch.empty(len(lengths) + 5, dtype=torch.int32, device="cuda")
        packing = Packing(lengths, torch.device("cuda"), num_splits=num_splits, starts=starts)
        packed_attention(torch.nn.Module(), query, key, value, None, packing=packing)
    assert kernels.names == [getattr(varlen, kernel)]


class Kernels(TorchDispatchMode):
    """Notes the kernels of all varlen attentions."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[int] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.torch_attn._varlen_attn.default:
            bound = inspect.signature(varlen._varlen_attn._init_fn).bind(*args, **(kwargs or {}))
            bound.apply_defaults()
            self.names.append(bound.arguments["backend"])
        return function(*args, **(kwargs or {}))


class FakeCopies:
    """Copies to a device that is not there."""

    def __init__(self) -> None:
        self.copies = 0

    def batch(self) -> AbstractContextManager[None]:
        return nullcontext()

    def copied(self, numbers: Numbers) -> Tensor:
        self.copies += 1
        return torch.empty(len(numbers), dtype=torch.int32, device="cuda")


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_batch_on_a_gpu_is_one_copy_and_asks_the_device_for_no_number(
    tmp_path: Path, pooling: PoolingMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fake tensors have shapes and no numbers: whoever needs a number of theirs fails."""
    make_hopper(monkeypatch)
    package = make_tiny_package(tmp_path / "p", precision="bf16", pooling=pooling)
    manifest = package.manifest
    shapes = {name: weight.shape for name, weight in load_file(package.folder / "model.safetensors").items()}
    prefix, endings = list(range(60, 80)), [[7] * length for length in (70, 30, 7, 7, 1)]
    with FakeTensorMode(allow_non_fake_inputs=True):
        weights = {name: torch.empty(shape, dtype=torch.bfloat16, device="cuda") for name, shape in shapes.items()}
        model = build_model(read_config(package.folder), weights, torch.device("cuda"))
        use_packed_layers(model)
        forward = PackedForward(model, manifest, torch.device("cuda"))
        forward._copies = copies = FakeCopies()
        assert forward.can_share(prefix)
        shared = forward.shared_prefix(prefix)
        vectors = [
            forward.vectors(endings, None),
            forward.vectors([prefix + ending for ending in endings], shared),
        ]
    assert [(tuple(each.shape), each.device.type, each.dtype) for each in vectors] == [
        ((len(endings), manifest.dimension), "cuda", torch.float32)
    ] * 2
    assert copies.copies == 3


@pytest.mark.parametrize(("attention_kernel", "num_splits"), [("flash", 0), ("invariant", 1), ("any", None)])
def test_the_setting_reaches_the_attention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attention_kernel: AttentionKernel, num_splits: NumSplits
) -> None:
    package = make_tiny_package(tmp_path / "p", num_key_value_heads=4)
    seen = []

    def noted(*args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        seen.append(options.pop("num_splits"))
        return of_torch_2_11(*args, **options)

    noted.__signature__ = Signature([Parameter("num_splits", Parameter.KEYWORD_ONLY)])  # type: ignore[attr-defined]
    monkeypatch.setattr(varlen, "varlen_attn", noted)
    monkeypatch.setattr(attention, "uses_varlen", lambda *_: True)
    Encoder.unchecked(package, device="cpu", attention=attention_kernel).encode_texts(["one", "another text"])
    assert set(seen) == {num_splits}


def test_a_torch_that_cannot_keep_keys_whole_refuses_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", of_torch_2_11)
    monkeypatch.setattr(packed_forward, "uses_varlen", lambda *_: True)
    package = make_tiny_package(tmp_path / "p")
    with pytest.raises(EncodingFailed, match=r"needs torch 2\.12 on a GPU; install it, or set flash$"):
        Encoder.unchecked(package, device="cpu", attention="invariant")
