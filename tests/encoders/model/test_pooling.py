import pytest
import torch

from encoders.model.attention import Packing
from encoders.model.pooling import SharedPrefix, pool

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_prefix", [False, True])
def test_one_reduction_gives_the_means_of_one_by_one(dtype: torch.dtype, with_prefix: bool) -> None:
    lengths = [40, 7, 7, 7, 2, 1, 1]
    hidden = torch.randn(sum(lengths) + 3, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    shared = SharedPrefix(4, [], torch.arange(16.0)) if with_prefix else None
    packing = Packing(lengths, CPU, rows=len(hidden))
    prompts = torch.split(hidden[: sum(lengths)].double(), lengths)
    expected = torch.stack(
        [(prompt.sum(0) + (shared.sum_H if shared else 0)) / (len(prompt) + (4 if shared else 0)) for prompt in prompts]
    ).float()
    pooled = pool(hidden, packing, "mean", shared)
    torch.testing.assert_close(pooled, expected)
    assert pooled.dtype == torch.float32
    learning = pool(hidden.clone().requires_grad_(True), packing, "mean", shared)
    torch.testing.assert_close(learning, expected)
    assert learning.requires_grad
