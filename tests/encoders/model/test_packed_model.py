import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaModel

from encoders.errors import BadPackage, EncodingFailed, Unencodable
from encoders.model.fused_linear import matrix_rows
from encoders.model.loading import choose_device, load_model
from encoders.model.packed_model import PackedModel
from encoders.package.manifest import PoolingMode
from encoders.package.model_package import ModelPackage
from tests.kit.packages import FailsOn, make_tiny_package
from tests.kit.reference_model import one_by_one, worst_distance

CPU = torch.device("cpu")
LAYOUTS: dict[str, dict[str, Any]] = {
    "as many key heads": {"num_key_value_heads": 4},
    "grouped queries": {"num_key_value_heads": 1},
    "own head size": {"head_dim": 32},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "another activation": {"hidden_act": "gelu"},
    "llama3 rope": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
}


def random_prompts(num: int = 40, longest: int = 70) -> list[list[int]]:
    rng = np.random.default_rng(7)
    return [rng.integers(0, 256, length).tolist() for length in [1, 1, *rng.integers(1, longest, num - 2)]]


def packed(package: ModelPackage, budget_tokens: int = 300, device: torch.device = CPU) -> PackedModel:
    return PackedModel(load_model(package.folder, package.manifest, device), package.manifest, device, budget_tokens)


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_packed_vectors_are_those_of_one_by_one_fp64(tmp_path: Path, layout: str, pooling: PoolingMode) -> None:
    package = make_tiny_package(tmp_path / "p", pooling=pooling, **LAYOUTS[layout])
    prompts = random_prompts()
    vectors = packed(package).run(prompts).vectors
    assert worst_distance(vectors, one_by_one(package, prompts, pooling)) < 1e-6
    assert all(np.asarray(vector).dtype == np.float32 for vector in vectors)


def test_a_cut_vector_has_length_one(tmp_path: Path) -> None:
    package = make_tiny_package(tmp_path / "p", dimension=16)
    prompts = random_prompts()
    vectors = packed(package).run(prompts).vectors
    assert worst_distance(vectors, one_by_one(package, prompts, "mean")) < 1e-6
    assert np.linalg.norm(np.stack(vectors), axis=1) == pytest.approx(1)
    assert np.stack(vectors).shape == (len(prompts), 16)


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bf16_stays_close_to_its_own_weights_in_fp64(tmp_path: Path, layout: str, pooling: PoolingMode) -> None:
    package = make_tiny_package(tmp_path / "p", precision="bf16", pooling=pooling, **LAYOUTS[layout])
    prompts, prefix = random_prompts(), list(range(60, 100))
    model = packed(package)
    vectors = model.run(prompts).vectors
    assert 1e-9 < worst_distance(vectors, one_by_one(package, prompts, pooling)) < 3e-3
    if matrix_rows(1, CPU, torch.bfloat16) > 1:
        assert 0 < model.stats.padding_tokens < matrix_rows(1, CPU, torch.bfloat16) * model.stats.batches
    after_prefix = [prefix + ending for ending in prompts]
    vectors = packed(package).run(after_prefix, prefix).vectors
    assert worst_distance(vectors, one_by_one(package, after_prefix, pooling)) < 3e-3


def test_a_vector_does_not_depend_on_what_else_is_in_the_batch(package: ModelPackage) -> None:
    prompts = random_prompts()
    together = packed(package, 8192).run(prompts).vectors
    alone = [packed(package, 1).run([prompt]).vectors[0] for prompt in prompts]
    assert np.stack(together) == pytest.approx(np.stack(alone), abs=1e-6)


class SmallMemory:
    """Raises as CUDA does, from more than `tokens` tokens on."""

    def __init__(self, model: LlamaModel, tokens: int) -> None:
        self.model = model
        self.tokens = tokens

    def __call__(self, **inputs: Any) -> Any:
        if inputs["input_ids"].shape[1] > self.tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.model(**inputs)


def test_out_of_memory_halves_the_budget_and_goes_on(package: ModelPackage) -> None:
    prompts = random_prompts()
    model = packed(package, 1000)
    expected = model.run(prompts).vectors
    model.forward.model = SmallMemory(model.forward.model, 300)  # type: ignore[assignment]
    assert np.stack(model.run(prompts).vectors) == pytest.approx(np.stack(expected), abs=1e-6)
    assert model.budget_tokens <= 300
    assert model.stats.halvings >= 1


def test_a_text_that_can_never_fit_does_not_stop_the_others(package: ModelPackage) -> None:
    model = packed(package, 1000)
    model.forward.model = SmallMemory(model.forward.model, 60)  # type: ignore[assignment]
    outcomes = model.run([[1] * 30, [1] * 61, [2] * 60]).vectors
    assert [isinstance(outcome, Unencodable) for outcome in outcomes] == [False, True, False]
    assert "61 tokens" in outcomes[1].cause  # type: ignore[union-attr]


def test_a_vector_that_is_not_finite_is_refused_alone(package: ModelPackage) -> None:
    model = packed(package)
    with torch.no_grad():
        model.forward.model.embed_tokens.weight[5] = float("nan")
    outcomes = model.run([[1, 2], [1, 5], [3]]).vectors
    assert [isinstance(outcome, Unencodable) for outcome in outcomes] == [False, True, False]


def test_a_text_on_which_the_model_fails_costs_no_other(package: ModelPackage) -> None:
    prompts = [*random_prompts(), [1, 300, 2], *random_prompts(), [300]]
    expected = packed(package).run([[token % 300 for token in prompt] for prompt in prompts]).vectors
    model = packed(package)
    model.forward.model = FailsOn(model.forward.model, 300)  # type: ignore[assignment]
    outcomes = model.run(prompts).vectors
    for prompt, outcome, vector in zip(prompts, outcomes, expected, strict=True):
        if 300 in prompt:
            assert outcome == Unencodable("the model fails on this text: poison")
        else:
            np.testing.assert_allclose(outcome, vector, atol=1e-6)
    assert model.stats.halvings == 0


def test_a_device_that_fails_is_no_fault_of_a_record(package: ModelPackage) -> None:
    model = packed(package)

    def broken(**_: Any) -> Any:
        raise RuntimeError("device lost")

    model.forward.model = broken  # type: ignore[assignment]
    with pytest.raises(EncodingFailed, match="device lost"):
        model.run([[1]])


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_shared_prefix_is_computed_once_and_changes_no_vector(
    tmp_path: Path, layout: str, pooling: PoolingMode
) -> None:
    package = make_tiny_package(tmp_path / "p", pooling=pooling, **LAYOUTS[layout])
    prefix = list(range(60, 100))
    endings = random_prompts()
    prompts = [prefix + ending for ending in endings]
    model = packed(package)
    vectors = model.run(prompts, prefix).vectors
    assert model.stats.tokens == sum(map(len, endings))
    assert worst_distance(vectors, one_by_one(package, prompts, pooling)) < 1e-6


def test_a_prompt_that_does_not_go_on_after_the_prefix_is_computed_whole_and_the_others_share_it(
    package: ModelPackage,
) -> None:
    prefix = list(range(60, 80))
    for odd in ([*prefix[:19], 5, 6], prefix, prefix[:3]):
        prompts = [[*prefix, 7, 8], odd, [*prefix, 9]]
        model = packed(package)
        vectors = model.run(prompts, prefix).vectors
        assert model.stats.tokens == 2 + len(odd) + 1
        assert worst_distance(vectors, one_by_one(package, prompts, "mean")) < 1e-6


def test_it_counts_what_it_did(package: ModelPackage) -> None:
    model = packed(package, 100)
    model.run([[1] * 60, [2] * 60, [3] * 30])
    stats = model.stats
    # Two rounds of 75 tokens would do, but no two of these prompts go into one.
    assert (stats.prompts, stats.tokens, stats.batches, stats.budget_tokens) == (3, 150, 3, 225)
    assert stats.device_s > 0


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"model_type": "llama"', '"model_type": "qwen2"', "only llama"),
        ('"hidden_size": 64', '"hidden_size": 32', "size 32"),
        ('"num_hidden_layers": 2', '"num_hidden_layers": 3', "do not fit"),
        ('"num_key_value_heads": 2', '"num_key_value_heads": 4', "do not fit"),
    ],
)
def test_weights_that_do_not_fit_are_refused(copy: Path, old: str, new: str, reason: str) -> None:
    config = (copy / "config.json").read_text()
    assert old in config
    (copy / "config.json").write_text(config.replace(old, new))
    with pytest.raises(BadPackage, match=reason):
        load_model(copy, ModelPackage.read(copy).manifest, CPU)


@pytest.mark.parametrize(
    "scaling",
    [
        '"rope_scaling": {"type": "dynamic", "factor": 2.0}',
        '"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}',
        '"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0}',
    ],
)
def test_positions_that_depend_on_the_batch_are_refused(copy: Path, scaling: str) -> None:
    config = json.loads((copy / "config.json").read_text())
    config.pop("rope_parameters", None)
    (copy / "config.json").write_text(json.dumps(config | json.loads(f"{{{scaling}}}")))
    with pytest.raises(BadPackage, match=r"(dynamic|longrope), with which a vector depends on .* llama3 or yarn"):
        load_model(copy, ModelPackage.read(copy).manifest, CPU)


def test_auto_takes_a_gpu_where_there_is_one() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_on_a_gpu_the_vectors_are_the_same(tmp_path: Path, layout: str) -> None:
    package = make_tiny_package(tmp_path / "p", precision="bf16", **LAYOUTS[layout])
    model = packed(package, device=torch.device("cuda"))
    prompts = random_prompts()
    assert worst_distance(model.run(prompts).vectors, one_by_one(package, prompts, "mean")) < 3e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_on_a_gpu_a_shared_prefix_changes_no_vector(tmp_path: Path, layout: str) -> None:
    package = make_tiny_package(tmp_path / "p", precision="bf16", **LAYOUTS[layout])
    model = packed(package, device=torch.device("cuda"))
    prefix = list(range(60, 100))
    endings = random_prompts()
    prompts = [prefix + ending for ending in endings]
    vectors = model.run(prompts, prefix).vectors
    assert model.stats.tokens == sum(map(len, endings))
    assert worst_distance(vectors, one_by_one(package, prompts, "mean")) < 3e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_fp32_is_as_exact(package: ModelPackage) -> None:
    model = packed(package, device=torch.device("cuda"))
    prompts = random_prompts()
    assert worst_distance(model.run(prompts).vectors, one_by_one(package, prompts, "mean")) < 1e-6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_on_a_gpu_the_host_waits_for_nothing_within_a_batch(tmp_path: Path, pooling: PoolingMode) -> None:
    package = make_tiny_package(tmp_path / "p", precision="bf16", pooling=pooling)
    model = packed(package, device=torch.device("cuda"))
    prompts = sorted(random_prompts(), key=len, reverse=True)
    prefix = list(range(60, 100))
    shared = model.forward.shared_prefix(prefix)
    model.forward.vectors(prompts, None)
    torch.cuda.set_sync_debug_mode("error")
    try:
        model.forward.vectors(prompts, None)
        model.forward.vectors([prefix + prompt for prompt in prompts], shared)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_a_batch_that_does_not_fit_is_divided(tmp_path: Path) -> None:
    """This process may take so little of the card that the whole batch does not fit."""
    package = make_tiny_package(tmp_path / "p", precision="bf16")
    model = packed(package, 100_000, device=torch.device("cuda"))
    prompts = random_prompts(400)
    expected = model.run(prompts).vectors
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 16 * 1024**2) / total, 0)
    try:
        vectors = model.run(prompts).vectors
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)
    assert model.stats.halvings > 0
    assert np.stack(vectors) == pytest.approx(np.stack(expected), abs=2e-2)
