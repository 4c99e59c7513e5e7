import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from encoders.packages import ModelPackage
from tests.trainer.devices_child import ROWS, loss_of
from tests.trainer.kit import events, write_events
from tests.trainer.test_training import CONFIG


def test_the_batches_of_two_devices_are_one_batch_and_one_of_them_writes(tmp_path: Path) -> None:
    """Two processes of CPU stand for two GPUs."""
    recorded = write_events(tmp_path / "events.jsonl", events(200))
    (tmp_path / "train.toml").write_text(CONFIG)
    out = tmp_path / "out" / "package"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [tmp_path, recorded, out, tmp_path / "train.toml"]
    ran = subprocess.run(
        [*launch, "-m", "tests.trainer.devices_child", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert [one["processes"] for one in found] == [2, 2]
    for kind in ("infonce", "bce"):
        weights = torch.eye(8, requires_grad=True)
        whole = loss_of(kind, slice(0, 10), [*ROWS[0], *ROWS[1]], weights)
        whole.backward()
        assert weights.grad is not None
        assert abs(sum(one[kind]["loss"] for one in found) / 2 - whole.item()) < 1e-5
        mean = sum(torch.tensor(one[kind]["gradient"]) for one in found) / 2
        assert torch.allclose(mean, weights.grad, atol=1e-5), "what accelerate makes of both is the whole's"
    package = ModelPackage.load(out)
    assert [path.name for path in out.parent.iterdir()] == ["package"]
    assert ran.stdout.splitlines() == [str(package.generation)]
    record = package.manifest.training
    assert record["losses"][-1][0] == record["seen"]["steps"] // 2 // 5 * 5, "each took every second batch"
