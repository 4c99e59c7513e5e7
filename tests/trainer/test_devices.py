import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from benchmarks.gpu.processes import DIVIDED
from encoders.package.model_package import WEIGHTS_FILE, ModelPackage
from tests.kit.children.train_on_two_devices import ROWS, gradient_of_embeddings, loss_of
from tests.kit.commands import Commands
from tests.kit.data.events import write_events
from tests.kit.data.training_events import TEXTS_ALONE, events, feed_of
from tests.kit.forks import Forks, Run, output_of
from tests.kit.packages import tiny_model
from trainer import device_use, preparation
from trainer.device_use import Card
from trainer.errors import BadStart
from trainer.inner_split import try_on_inner_split
from trainer.model.packed_llama import PackedLlama
from trainer.plan import Plan
from trainer.preparation import planned_data, prepare, starting_point
from trainer.settings import TrainSettings

ON_A_GPU = """
precision = "bf16"
pass_tokens = 128
cached_gradients = true
gradient_checkpointing = true
"""
ALL_BATCHES = 1_000


def as_launched(port: int, rank: int) -> dict[str, str]:
    """What `torchrun` and `accelerate launch` tell each of two processes, while they keep a store at this port."""
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    more = {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True", "ACCELERATE_USE_CPU": "true"}
    return {name: str(value) for name, value in {**ranks, **more}.items()}


def test_the_batches_of_two_devices_are_one_batch_and_one_of_them_writes(tmp_path: Path, forks: Forks) -> None:
    """Two processes of CPU stand for two GPUs."""
    recorded = write_events(tmp_path / "events.jsonl", events(200))
    (tmp_path / "train.toml").write_text(f"{TEXTS_ALONE}\n{ON_A_GPU}")
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
    whole_batch = gradient_of_embeddings(slice(0, 10), [*ROWS[0], *ROWS[1]])
    mean = sum(torch.tensor(results["cached"]) for results in of_ranks) / 2
    assert torch.allclose(mean, whole_batch, rtol=1e-3, atol=1e-5), "negatives of both, each pass computed again"
    for results in of_ranks:
        divided = torch.tensor(results["divided"])
        assert torch.allclose(divided, whole_batch, rtol=1e-3, atol=1e-5), "each has a part of the weights"
    package = ModelPackage.load(out)
    assert [path.name for path in out.parent.iterdir()] == ["package"]
    lines = [line for output in outputs for line in output.splitlines()]
    assert lines.count(str(package.generation)) == 1
    record = package.manifest.training
    assert record["losses"][-1][0] == record["seen"]["steps"] // 2 // 5 * 5, "each took every second batch"


def test_weights_that_accelerate_divides_learn_the_same_and_a_kill_changes_nothing(
    tmp_path: Path, forks: Forks
) -> None:
    """FSDP2 as on two GPUs, on two processes of CPU. A checkpoint has a file of each."""
    recorded = write_events(tmp_path / "events.jsonl", events(150))
    settings = f"{TEXTS_ALONE}\n{ON_A_GPU}".replace("bf16", "fp32").replace("_steps = 5", "_steps = 2")
    (tmp_path / "train.toml").write_text(settings)

    def trained(name: str, *options: str, environment: dict[str, str] = DIVIDED, last: int = ALL_BATCHES) -> list[int]:
        """`last`: of the first process, which is killed then."""
        out, config = tmp_path / name / "package", tmp_path / "train.toml"
        store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        children = [
            Run(
                "tests.kit.children.train_divided",
                [str(argument) for argument in (recorded, out, config, 5_000, batches, *options)],
                str(tmp_path / f"{name}-{rank}.txt"),
                {**as_launched(store.port, rank), **environment},
            )
            for rank, batches in enumerate((last, ALL_BATCHES))
        ]
        statuses = forks.run(*children)
        assert statuses == [0, 0] or last < ALL_BATCHES, [output_of(child) for child in children]
        return statuses

    trained("whole", environment={})
    trained("divided")
    assert trained("killed", last=4)[0] == -signal.SIGKILL
    checkpoint = tmp_path / "killed" / ".package.training" / "checkpoint-2"
    parts = {file.name for file in (checkpoint / "pytorch_model_fsdp_0").iterdir()}
    assert parts == {".metadata", "__0_0.distcp", "__1_0.distcp"}
    assert (checkpoint / "trainer_state.json").exists(), "training goes on from here"
    trained("killed", "--resume")
    whole, divided, killed = (ModelPackage.load(tmp_path / name / "package") for name in ("whole", "divided", "killed"))
    assert killed.manifest.files == divided.manifest.files
    losses, divided_losses = ([loss for _, loss in package.manifest.training["losses"]] for package in (whole, divided))
    assert len(losses) > 1
    assert divided_losses == pytest.approx(losses, rel=1e-3)
    weights, divided_weights = (load_file(package.folder / WEIGHTS_FILE) for package in (whole, divided))
    for name, weight in weights.items():
        assert torch.cosine_similarity(divided_weights[name].flatten(), weight.flatten(), dim=0) > 0.999, name


def test_one_process_trains_on_one_device_and_the_command_says_what_is_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for a machine with two GPUs: transformers would copy the model to both in each step."""
    feed = feed_of(events(60))
    settings = TrainSettings(hidden=32, layers=1, heads=1, vocabulary=300, dimensions=(32,), batch_tokens=256, era=50)
    plan = Plan(feed.cut(0.15), 300, 0, settings, "one")
    data = planned_data(feed, plan)
    trainer = prepare(starting_point(plan, data, tmp_path), data, plan, tmp_path).trainer
    trainer.args._n_gpu = 2
    assert trainer.args.n_gpu == 1
    assert trainer._wrap_model(trainer.model) is trainer.model
    monkeypatch.setattr(device_use, "this_card", lambda: Card("cuda", "a card", 0, has_bf16=True, shards=1, idle=1))
    recorded = write_events(tmp_path / "events.jsonl", [])
    ran = Commands()("train", "--events", recorded, "--out", tmp_path / "out")
    assert ran.err.startswith("trains on one GPU and leaves 1 idle; accelerate launch -m nearline train uses all\n")


def test_where_weights_are_divided_nothing_is_tried_on_an_inner_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    feed = feed_of(events(60))
    plan = Plan(feed.cut(0.15), 300, 0, TrainSettings(member_form="auto"), "two")
    with pytest.raises(BadStart, match="set member_form to mean or prompt"):
        try_on_inner_split(feed, plan, tmp_path)


def test_what_was_divided_has_the_names_of_the_model() -> None:
    """After training the whole weights are loaded into a model that is not divided."""
    stock = tiny_model(50, 8, 1, seed=0)
    model = SentenceTransformer(modules=[PackedLlama(stock)])
    names = {name.removeprefix(preparation._OF_MODEL) for name in model.state_dict()}
    assert names == stock.state_dict().keys()
