"""The passes in parallel threads, and one after the other: the same vectors, the same gradients."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaModel

from encoders.prompt.prompts import Prompt
from tests.kit.packages import tiny_model
from tests.kit.torch_threads import torch_threads
from trainer.model.lora import with_adapters
from trainer.model.packed_llama import PackedLlama, pack_features, trainable
from trainer.model.parallel_passes import ParallelPasses

LENGTHS = [70, 33, 33, 32, 31, 17, 16, 16, 7, 6, 5, 2, 1, 1]
Learned = tuple[Tensor, dict[str, Tensor]]


def llama() -> LlamaModel:
    stock = tiny_model(50, 32, 2, seed=0)
    rng = torch.Generator().manual_seed(1)
    weights = {
        name: weight + 0.1 * torch.randn(weight.shape, generator=rng) for name, weight in stock.state_dict().items()
    }
    return trainable(stock.config, weights)


def adapted() -> LlamaModel:
    model = llama()
    with_adapters(model, 2, [1], seed=0)
    return model


def prompts(lengths: list[int] = LENGTHS) -> list[Prompt]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 50, length).tolist() for length in rng.permutation(lengths)]


def learned(packed: PackedLlama, prompts_of_batch: list[Prompt]) -> Learned:
    """Vectors, and the gradients of a loss to which each of their numbers is something else."""
    vectors: Tensor = packed(pack_features(prompts_of_batch, pass_tokens=80))["sentence_embedding"]
    (vectors * torch.linspace(-1, 1, vectors.numel()).view_as(vectors)).sum().backward()
    gradients = {name: weight.grad.clone() for name, weight in packed.named_parameters() if weight.grad is not None}
    packed.zero_grad()
    return vectors.detach(), gradients


def one_after_the_other(model: LlamaModel, prompts_of_batch: list[Prompt]) -> Learned:
    """In double precision: what is compared with it has its own rounding alone."""
    with torch_threads(1):
        return learned(PackedLlama(model.double()), prompts_of_batch)


def assert_alike(result: Learned, expected: Learned) -> None:
    assert torch.allclose(result[0].double(), expected[0].double(), atol=1e-5)
    assert result[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        assert (result[1][name] - gradient).abs().max() <= 1e-5 * (1 + gradient.abs().max()), name


@pytest.mark.parametrize("lengths", [LENGTHS, [1], [5] * 9, [96, 48]])
def test_vectors_and_gradients_are_those_of_passes_one_after_the_other(two_threads: None, lengths: list[int]) -> None:
    """Also where there are fewer passes than threads."""
    packed = PackedLlama(llama())
    assert packed._parallel is not None
    assert_alike(learned(packed, prompts(lengths)), one_after_the_other(llama(), prompts(lengths)))


def test_of_an_adapted_model_only_what_learns_has_gradients(two_threads: None) -> None:
    result = learned(PackedLlama(adapted()), prompts())
    assert all("lora" in name or "trainable_tokens" in name for name in result[1])
    assert_alike(result, one_after_the_other(adapted(), prompts()))


def test_every_weight_learns_and_one_seed_gives_the_same_bits_again(two_threads: None) -> None:
    packed = PackedLlama(llama())
    _, first = learned(packed, prompts())
    learned(packed, prompts([40, 3, 3]))
    _, again = learned(packed, prompts())
    assert first.keys() == dict(packed.named_parameters()).keys()
    assert all(gradient.any() for gradient in first.values())
    assert all(torch.equal(gradient, again[name]) for name, gradient in first.items())


def test_two_batches_may_wait_for_their_gradients(two_threads: None) -> None:
    packed = PackedLlama(llama())
    first, second = (
        packed(pack_features(prompts(lengths), pass_tokens=80))["sentence_embedding"] for lengths in (LENGTHS, [40, 9])
    )
    (first.square().sum() + second.square().sum()).backward()
    expected = PackedLlama(llama())
    with torch_threads(1):
        for lengths in (LENGTHS, [40, 9]):
            features = pack_features(prompts(lengths), pass_tokens=80)
            expected(features)["sentence_embedding"].square().sum().backward()
    assert torch.allclose(packed.llama.norm.weight.grad, expected.llama.norm.weight.grad, rtol=1e-4)


def test_each_thread_takes_every_nth_pass_and_one_torch_thread(two_threads: None) -> None:
    """A thread that starts later has as many torch threads as before: the golden vectors of a package are computed in
    such a thread, also where a training is resumed after its last step and runs no pass."""
    weight = torch.ones(1, requires_grad=True)
    threads = []

    def one_pass(number: int) -> Tensor:
        threads.append(torch.get_num_threads())
        return weight * number

    parallel = ParallelPasses(2)
    shares = parallel.in_threads(lambda share: [*range(5)][share], 5)
    rows = parallel([lambda number=number: one_pass(number) for number in range(5)], [weight])  # type: ignore[misc]
    assert shares == [[0, 2, 4], [1, 3]]
    assert rows.tolist() == [0, 1, 2, 3, 4]
    assert threads == [1] * 5
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == 2


def test_what_fails_in_a_thread_is_raised() -> None:
    def failing() -> Tensor:
        raise MemoryError

    with pytest.raises(MemoryError):
        ParallelPasses(2)([failing], [torch.ones(1, requires_grad=True)])


def test_passes_are_of_about_equal_size_and_as_many_for_each_thread() -> None:
    features = pack_features(prompts(), pass_tokens=80, threads=2)
    sizes = [sum(lengths) for lengths in features["lengths"]]
    assert sum(sizes) == sum(LENGTHS)
    assert len(sizes) == 4
    assert max(sizes) < 80 + max(LENGTHS)
