"""One of two processes as `torchrun` would start them: checks the loss, then trains: `ROOT EVENTS OUT CONFIG`.

Writes its results to ROOT, a file for each rank.
"""

import json
import sys
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from sentence_transformers.util import get_rank, get_world_size

from nearline import cli
from trainer.data.dataset import NOBODY
from trainer.model.loss import LeaveOneOut
from trainer.settings import TrainSettings

ROWS = ([0, 0, 0, 1, 1, NOBODY], [2, 2, 3, 3])
"""The owners of each rank's rows. The ranks have different numbers of rows."""
OWNED = {0: {0, 1, 2, 7}, 1: {3, 4}, 2: {6, 7}, 3: {0, 8, 9}}
DIMENSIONS = (4, 8)


def vectors() -> torch.Tensor:
    return torch.randn(10, 8, generator=torch.Generator().manual_seed(0))


def loss_of(kind: str, rows: slice, owners: list[int], weights: torch.Tensor) -> torch.Tensor:
    """`weights`: the learned parameters, equal on every device."""

    class FixedModel(torch.nn.Module):
        def forward(self, _: object) -> dict[str, torch.Tensor]:
            return {"sentence_embedding": vectors()[rows] @ weights}

    settings = TrainSettings.model_validate({"loss": kind})
    loss = LeaveOneOut(cast(Any, FixedModel()), settings, DIMENSIONS, OWNED)  # it only asks for vectors
    result: torch.Tensor = loss([{"number": torch.arange(10)[rows]}], torch.tensor(owners))
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
    Path(root, f"rank-{rank}.json").write_text(json.dumps(results))
    sys.argv = ["nearline", "train", "--events", recorded, "--out", out, "--config", config, "--tokens", "6000"]
    cli.main()
