"""One of two processes as `torchrun` would start them: checks the loss, then trains: `ROOT EVENTS OUT CONFIG`.

Writes its results to ROOT, a file for each rank.
"""

import json
import sys
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import get_rank, get_world_size
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from nearline import cli
from tests.kit.packages import tiny_model
from trainer.data.dataset import NOBODY
from trainer.device_use import DeviceUse
from trainer.model.loss import LeaveOneOut
from trainer.model.packed_llama import PackedLlama, pack_features, trainable
from trainer.settings import TrainSettings

ROWS = ([0, 0, 0, 1, 1, NOBODY], [2, 2, 3, 3])
"""The owners of each rank's rows. The ranks have different numbers of rows."""
OWNED = {0: {0, 1, 2, 7}, 1: {3, 4}, 2: {6, 7}, 3: {0, 8, 9}}
DIMENSIONS = (4, 8)
_PASSES = 5
"""More than the texts of either rank fill: the last ones are of one token."""


def vectors() -> torch.Tensor:
    return torch.randn(10, 8, generator=torch.Generator().manual_seed(0))


def loss_of(kind: str, rows: slice, owners: list[int], weights: torch.Tensor) -> torch.Tensor:
    """`weights`: the learned parameters, equal on every device."""

    class FixedModel(torch.nn.Module):
        def forward(self, _: object) -> dict[str, torch.Tensor]:
            return {"sentence_embedding": vectors()[rows] @ weights}

    return _loss(kind, FixedModel(), {}, rows, owners)


def gradient_of_embeddings(
    rows: slice, owners: list[int], *, cached: bool = False, divided: bool = False
) -> torch.Tensor:
    """Of a small model on texts of its own. `cached`: by GradCache, in several passes. `divided`: each device has a
    part of each weight (FSDP2)."""
    stock = tiny_model(50, 8, 1, seed=0)
    use = DeviceUse("fp32", 16, gradient_checkpointing=divided, cached_gradients=cached)
    llama = trainable(stock.config, stock.state_dict())
    model = SentenceTransformer(modules=[PackedLlama(llama, use=use)]).train()
    if divided:
        devices = init_device_mesh("cpu", (get_world_size(),))
        for layer in (*llama.layers, model):
            fully_shard(layer, mesh=devices)
    prompts = [[(7 * row + at) % 50 for at in range(3 + row)] for row in range(10)][rows]
    features = pack_features(prompts, use.pass_tokens if cached else 1_000, num_passes=_PASSES if divided else None)
    assert (len(features["lengths"]) > 1) == cached
    _loss("infonce", model, features, rows, owners).backward()
    gradient = llama.embed_tokens.weight.grad
    assert gradient is not None
    return gradient.full_tensor() if isinstance(gradient, DTensor) else gradient


def _loss(kind: str, model: torch.nn.Module, features: dict[str, Any], rows: slice, owners: list[int]) -> torch.Tensor:
    settings = TrainSettings.model_validate({"loss": kind})
    loss = LeaveOneOut(cast(Any, model), settings, DIMENSIONS, OWNED)  # it only asks for vectors
    result: torch.Tensor = loss([{**features, "number": torch.arange(10)[rows]}], torch.tensor(owners))
    return result


if __name__ == "__main__":
    root, recorded, out, config = sys.argv[1:]
    PartialState(cpu=True)
    results: dict[str, object] = {"processes": get_world_size()}
    rank = get_rank()
    first = sum(len(owners) for owners in ROWS[:rank])
    for kind in ("infonce", "bce"):
        weights = torch.eye(8, requires_grad=True)
        loss = loss_of(kind, slice(first, first + len(ROWS[rank])), list(ROWS[rank]), weights)
        loss.backward()
        assert weights.grad is not None
        results[kind] = {"loss": loss.item(), "gradient": weights.grad.tolist()}
    own_rows = slice(first, first + len(ROWS[rank]))
    results["cached"] = gradient_of_embeddings(own_rows, list(ROWS[rank]), cached=True).tolist()
    results["divided"] = gradient_of_embeddings(own_rows, list(ROWS[rank]), cached=True, divided=True).tolist()
    Path(root, f"rank-{rank}.json").write_text(json.dumps(results))
    sys.argv = ["nearline", "train", "--events", recorded, "--out", out, "--config", config, "--tokens", "6000"]
    cli.main()
