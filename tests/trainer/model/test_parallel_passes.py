"""The passes side by side and transformers' own layers: the same vectors, the same gradients."""

import shutil

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaModel

from encoders.prompt.prompts import Prompt
from tests.kit.packages import tiny_model
from trainer.model.kernels import load_kernels
from trainer.model.lora import with_adapters
from trainer.model.packed_llama import PackedLlama, pack_features, trainable
from trainer.model.parallel_passes import parallel_passes

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
LENGTHS = [70, 33, 33, 32, 31, 17, 16, 16, 7, 6, 5, 2, 1, 1]


def llama(hidden: int = 128) -> LlamaModel:
    stock = tiny_model(50, hidden, 2, seed=0)
    rng = torch.Generator().manual_seed(1)
    weights = {
        name: weight + 0.1 * torch.randn(weight.shape, generator=rng) for name, weight in stock.state_dict().items()
    }
    return trainable(stock.config, weights)


def prompts(lengths: list[int] = LENGTHS) -> list[Prompt]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 50, length).tolist() for length in rng.permutation(lengths)]


def by_transformers(model: LlamaModel) -> PackedLlama:
    packed = PackedLlama(model)
    packed.__dict__["_parallel"] = None
    return packed


def reference(lengths: list[int] = LENGTHS) -> tuple[Tensor, dict[str, Tensor]]:
    """By transformers' layers in double precision: what is compared with it has its own rounding alone."""
    return learned(by_transformers(llama().double()), prompts(lengths))


def learned(
    packed: PackedLlama, prompts_of_batch: list[Prompt], pass_tokens: int = 80
) -> tuple[Tensor, dict[str, Tensor]]:
    """Vectors, and the gradients of a loss to which each of their numbers is something else."""
    vectors: Tensor = packed(pack_features(prompts_of_batch, pass_tokens))["sentence_embedding"]
    (vectors * torch.linspace(-1, 1, vectors.numel()).view_as(vectors)).sum().backward()
    gradients = {name: weight.grad.clone() for name, weight in packed.named_parameters() if weight.grad is not None}
    packed.zero_grad()
    return vectors.detach(), gradients


def assert_alike(result: tuple[Tensor, dict[str, Tensor]], expected: tuple[Tensor, dict[str, Tensor]]) -> None:
    assert torch.allclose(result[0], expected[0], atol=1e-5)
    assert result[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        assert (result[1][name] - gradient).abs().max() <= 1e-5 * (1 + gradient.abs().max()), name


@pytest.mark.parametrize("lengths", [LENGTHS, [1], [5] * 9, [1] * 20, [96, 48]])
def test_vectors_and_gradients_are_those_of_transformers_layers(two_threads: None, lengths: list[int]) -> None:
    packed = PackedLlama(llama())
    assert parallel_passes(packed.llama) is not None
    assert_alike(learned(packed, prompts(lengths)), reference(lengths))


def test_every_weight_learns_and_one_seed_gives_the_same_bits_again(two_threads: None) -> None:
    packed = PackedLlama(llama())
    _, first = learned(packed, prompts())
    learned(packed, prompts([40, 3, 3]))  # other sizes in the memory that is used again
    _, again = learned(packed, prompts())
    assert first.keys() == dict(packed.named_parameters()).keys()
    assert all(gradient.any() for gradient in first.values())
    assert all(torch.equal(gradient, again[name]) for name, gradient in first.items())


def test_two_batches_may_wait_for_their_gradients(two_threads: None) -> None:
    packed = PackedLlama(llama())
    first, second = (
        packed(pack_features(prompts(lengths), 80))["sentence_embedding"] for lengths in (LENGTHS, [40, 9])
    )
    (first.square().sum() + second.square().sum()).backward()
    stock = by_transformers(llama())
    for lengths in (LENGTHS, [40, 9]):
        stock(pack_features(prompts(lengths), 80))["sentence_embedding"].square().sum().backward()
    assert torch.allclose(packed.llama.norm.weight.grad, stock.llama.norm.weight.grad, rtol=1e-4)


def test_what_does_not_fit_is_left_to_transformers() -> None:
    assert parallel_passes(llama(24)) is None
    adapted = llama()
    with_adapters(adapted, 2, [1], seed=0)
    assert parallel_passes(adapted) is None


def test_without_a_compiler_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    load_kernels.cache_clear()
    packed = PackedLlama(llama())
    result = learned(packed, prompts())
    load_kernels.cache_clear()
    assert parallel_passes(packed.llama) is None
    assert_alike(result, reference())


def test_passes_are_of_about_equal_size_and_as_many_for_each_thread() -> None:
    features = pack_features(prompts(), pass_tokens=80, threads=2)
    sizes = [sum(lengths) for lengths in features["lengths"]]
    assert sum(sizes) == sum(LENGTHS)
    assert len(sizes) == 4
    assert max(sizes) < 80 + max(LENGTHS)
