import json
from pathlib import Path

import torch

from encoders.package.model_package import ModelPackage
from tests.kit.children.train_on_two_devices import ROWS, loss_of
from tests.kit.data.events import write_events
from tests.kit.data.training_events import TINY_MODEL, events
from tests.kit.forks import Forks, Run, output_of


def as_launched(port: int, rank: int) -> dict[str, str]:
    """What `torchrun` and `accelerate launch` tell each of two processes, while they keep a store at this port."""
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    more = {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True", "ACCELERATE_USE_CPU": "true"}
    # Without the kernels, which would be compiled first: the batches are the same.
    return {name: str(value) for name, value in {**ranks, **more, "CXX": "no-such-compiler"}.items()}


def test_the_batches_of_two_devices_are_one_batch_and_one_of_them_writes(tmp_path: Path, forks: Forks) -> None:
    """Two processes of CPU stand for two GPUs."""
    recorded = write_events(tmp_path / "events.jsonl", events(200))
    (tmp_path / "train.toml").write_text(TINY_MODEL)
    out = tmp_path / "out" / "package"
    arguments = [str(argument) for argument in (tmp_path, recorded, out, tmp_path / "train.toml")]
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    children = [
        Run(
            "tests.kit.children.train_on_two_devices",
            arguments,
            str(tmp_path / f"output-{rank}"),
            as_launched(store.port, rank),
        )
        for rank in range(2)
    ]
    statuses = forks.run(*children)
    outputs = [output_of(child) for child in children]
    assert statuses == [0, 0], outputs
    of_ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert [results["processes"] for results in of_ranks] == [2, 2]
    for kind in ("infonce", "bce"):
        weights = torch.eye(8, requires_grad=True)
        whole = loss_of(kind, slice(0, 10), [*ROWS[0], *ROWS[1]], weights)
        whole.backward()
        assert weights.grad is not None
        assert abs(sum(results[kind]["loss"] for results in of_ranks) / 2 - whole.item()) < 1e-5
        mean = sum(torch.tensor(results[kind]["gradient"]) for results in of_ranks) / 2
        assert torch.allclose(mean, weights.grad, atol=1e-5), "what accelerate makes of both is the whole's"
    package = ModelPackage.load(out)
    assert [path.name for path in out.parent.iterdir()] == ["package"]
    lines = [line for output in outputs for line in output.splitlines()]
    assert lines.count(str(package.generation)) == 1
    record = package.manifest.training
    assert record["losses"][-1][0] == record["seen"]["steps"] // 2 // 5 * 5, "each took every second batch"
