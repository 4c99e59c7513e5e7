"""What a training does on a GPU, as far as a CPU can show: bf16 over weights in fp32, and what is computed twice. Fake
tensors on a GPU that is not there show which kernels run, and that nothing waits for the device."""

import inspect
import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import varlen
from torch.utils._python_dispatch import TorchDispatchMode

from encoders.model import attention
from encoders.model.attention import ATTENTION, Packing
from encoders.model.loading import build_model
from encoders.model.pooling import LearningMeans, pool
from encoders.package.manifest import PoolingMode
from encoders.prompt.prompts import Prompt
from tests.kit.packages import tiny_model
from tests.kit.torch_threads import torch_threads
from trainer.device_use import DeviceUse, Precision
from trainer.model.packed_llama import PackedLlama, pack_features, trainable
from trainer.model.reproducible import reproducible

LENGTHS = (60, 31, 31, 30, 16, 7, 7, 2, 1)
Learned = tuple[Tensor, dict[str, Tensor]]


def prompts() -> list[Prompt]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 50, length).tolist() for length in LENGTHS]


def packed(precision: Precision = "fp32", *, checkpointing: bool = False, cached: bool = False) -> PackedLlama:
    stock = tiny_model(50, 32, 2, seed=0)
    llama = trainable(stock.config, stock.state_dict())
    return PackedLlama(llama, use=DeviceUse(precision, 64, checkpointing, cached)).train()


def learned(model: PackedLlama) -> Learned:
    """Vectors, and the gradients of a loss that knows all of them."""
    vectors: Tensor = model(pack_features(prompts(), 64))["sentence_embedding"]
    (vectors @ vectors.T).softmax(1).diagonal().log().sum().backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return vectors.detach(), gradients


@pytest.mark.parametrize("threads", [1, 2])
def test_bf16_computes_in_bf16_and_learns_in_fp32(threads: int) -> None:
    with torch_threads(threads):
        exact, half = learned(packed()), learned(packed("bf16"))
    assert half[0].dtype == torch.float32
    assert not torch.equal(half[0], exact[0])
    assert torch.cosine_similarity(half[0], exact[0]).min() > 1 - 1e-3
    assert half[1].keys() == exact[1].keys()
    for name, gradient in half[1].items():
        assert gradient.dtype == torch.float32
        assert torch.cosine_similarity(gradient.flatten(), exact[1][name].flatten(), dim=0) > 0.98, name


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("checkpointing", "cached"), [(True, False), (False, True), (True, True)])
def test_what_is_computed_twice_gives_the_same_bits(
    precision: Precision, checkpointing: bool, cached: bool, threads: int
) -> None:
    with torch_threads(threads):
        once = learned(packed(precision))
        twice = learned(packed(precision, checkpointing=checkpointing, cached=cached))
    assert torch.equal(once[0], twice[0])
    assert once[1].keys() == twice[1].keys()
    assert [name for name, gradient in once[1].items() if not torch.equal(gradient, twice[1][name])] == []


def test_every_batch_may_have_the_same_number_of_passes() -> None:
    """Passes that no text fills change neither vectors nor gradients."""
    features = pack_features(prompts(), num_passes=7)
    assert len(features["lengths"]) == 7
    assert features["lengths"][-1] == [1]
    model = packed(cached=True)
    vectors = model(features)["sentence_embedding"]
    (vectors @ vectors.T).softmax(1).diagonal().log().sum().backward()
    expected = learned(packed())
    assert torch.allclose(vectors, expected[0], atol=1e-5)
    for name, weight in model.named_parameters():
        assert weight.grad is not None
        assert torch.allclose(weight.grad, expected[1][name], atol=1e-4), name


def kept_numbers(model: PackedLlama) -> int:
    """How many are kept for the gradients of a batch, beside the weights."""
    weights = {weight.data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and tensor.data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().size()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        model(pack_features(prompts(), 64))
    return sum(kept.values())


def test_less_is_kept_for_the_gradients() -> None:
    whole, layers = kept_numbers(packed()), kept_numbers(packed(checkpointing=True))
    passes = kept_numbers(packed(cached=True))
    assert layers < whole / 4
    assert passes < layers / 4, "nothing of a pass is kept"


class Kernels(TorchDispatchMode):
    """Notes the precision and the kernel of each varlen attention, and all other attentions."""

    def __init__(self) -> None:
        super().__init__()
        self.varlen: list[tuple[torch.dtype, int | None]] = []
        self.others: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function)
        if name.startswith("torch_attn._varlen_attn"):
            bound = inspect.signature(varlen._varlen_attn._init_fn).bind(*args, **(kwargs or {}))
            bound.apply_defaults()
            self.varlen.append((args[0].dtype, bound.arguments.get("backend")))
        elif "scaled_dot_product" in name:
            self.others.append(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def seeming_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch thinks that there is a Hopper."""
    monkeypatch.setattr(varlen, "_should_use_cudnn", lambda _: True, raising=False)
    monkeypatch.setattr(varlen, "_cudnn_version_and_major_capability", lambda _: (99_999, 9), raising=False)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)


@pytest.mark.usefixtures("seeming_gpu")
@pytest.mark.parametrize(("pooling", "twice"), [("mean", False), ("mean", True), ("last", False)])
def test_on_a_gpu_each_layer_of_a_pass_is_one_flash_attention_and_nothing_waits(
    pooling: PoolingMode, twice: bool
) -> None:
    """Fake tensors have no numbers: whoever needs one fails."""
    layers, features = 2, pack_features(prompts(), 64)
    stock = tiny_model(50, 32, layers, seed=0)
    stock.config._attn_implementation = ATTENTION
    use = DeviceUse("bf16", 64, gradient_checkpointing=twice, cached_gradients=twice)
    with FakeTensorMode(allow_non_fake_inputs=True), Kernels() as kernels:
        weights = {name: torch.empty_like(weight, device="cuda") for name, weight in stock.state_dict().items()}
        llama = build_model(stock.config, weights, torch.device("cuda"))
        llama.requires_grad_(True)
        model = PackedLlama(llama, pooling, use).train()
        vectors = model({name: on_gpu(value) for name, value in features.items()})["sentence_embedding"]
    assert (vectors.device.type, vectors.dtype, vectors.shape) == ("cuda", torch.float32, (len(LENGTHS), 32))
    assert vectors.requires_grad
    num_passes = len(features["lengths"])
    assert num_passes > 1
    flash = getattr(varlen, "_FLASH_ATTENTION_BACKEND", None)
    assert kernels.varlen == [(torch.bfloat16, flash)] * (num_passes * layers)
    assert kernels.others == []


def test_the_gradient_of_a_gpus_means_asks_the_device_for_no_number() -> None:
    lengths = [5, 3, 3, 1]
    with FakeTensorMode():
        starts = torch.empty(len(lengths) + 5, dtype=torch.int32, device="cuda")
        packing = Packing(lengths, torch.device("cuda"), rows=14, starts=starts)
        ctx = SimpleNamespace(packing=packing, dtype=torch.bfloat16)
        gradient, _ = LearningMeans.backward(ctx, torch.empty(4, 8, device="cuda"))
    assert (gradient.shape, gradient.dtype) == ((14, 8), torch.bfloat16)


def varlen_by_sdpa(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, _: Tensor, *longest: int, **options: Any
) -> tuple[Tensor, Tensor]:
    """Stands in for torch's function, which has no CPU: prompt by prompt."""
    assert options["window_size"] == (-1, 0)
    assert query.dtype == key.dtype == value.dtype == torch.bfloat16
    prompts = zip(*(tensor.split(starts.diff().tolist()) for tensor in (query, key, value)), strict=True)
    attended = [
        F.scaled_dot_product_attention(
            *(heads.transpose(0, 1) for heads in prompt), is_causal=True, scale=options["scale"], enable_gqa=True
        ).transpose(0, 1)
        for prompt in prompts
    ]
    return torch.cat(attended), torch.empty(query.shape[1], len(query))


def test_the_attention_of_a_gpu_teaches_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = learned(packed("bf16"))
    monkeypatch.setattr(varlen, "varlen_attn", varlen_by_sdpa)
    monkeypatch.setattr(attention, "uses_varlen", lambda *_: True)
    found = learned(packed("bf16", checkpointing=True, cached=True))
    torch.testing.assert_close(found[0], expected[0], rtol=0.02, atol=0.02)
    for name, gradient in expected[1].items():
        assert torch.cosine_similarity(found[1][name].flatten(), gradient.flatten(), dim=0) > 0.99, name


def on_gpu(value: Any) -> Any:
    """As the trainer moves it: tensors, and lists of tensors."""
    if isinstance(value, list):
        return [on_gpu(each) for each in value]
    return torch.empty_like(value, device="cuda") if isinstance(value, Tensor) else value


def test_the_means_of_a_gpu_have_the_gradients_of_those_of_a_cpu() -> None:
    packing = Packing([5, 3, 3, 1], torch.device("cpu"), rows=14)
    hidden = torch.randn(14, 8, generator=torch.Generator().manual_seed(0))
    gradients = []
    for means in (lambda rows: LearningMeans.apply(rows, packing), lambda rows: pool(rows, packing, "mean")):
        rows = hidden.clone().requires_grad_(True)
        vectors = means(rows)
        (vectors * torch.linspace(-1, 1, vectors.numel()).view_as(vectors)).sum().backward()
        gradients.append((vectors.detach(), rows.grad))
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize(
    ("device", "wanted", "are_the_same"), [("cuda", True, True), ("cuda", False, False), ("cpu", True, False)]
)
def test_only_a_gpu_is_told_to_add_in_the_same_order(
    monkeypatch: pytest.MonkeyPatch, device: str, wanted: bool, are_the_same: bool
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with reproducible(torch.device(device), wanted=wanted):
        assert torch.are_deterministic_algorithms_enabled() == are_the_same
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == are_the_same
    assert not torch.are_deterministic_algorithms_enabled()
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
