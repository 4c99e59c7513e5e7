"""What the processes of part 5 do: trainings by `trainer.training`, as `nearline train` runs them."""

import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from transformers.trainer_utils import SaveStrategy

from benchmarks.gpu.device import forward_operations
from encoders.model.loading import read_config
from encoders.package.model_package import WEIGHTS_FILE, ModelPackage
from nearline.demo.world import WorldSize, make_world
from schemas.events import parse_event
from trainer.data.dataset import training_data
from trainer.data.feed import Feed, timed_event
from trainer.device_use import is_sharded
from trainer.model.collator import Collator
from trainer.settings import TrainSettings
from trainer.training import Plan, PreparedTraining, prepare, starting_point, train

_NOW: Final = datetime(2026, 1, 5, tzinfo=UTC)
_PASSES: Final = {True: 3, False: 2}
"""Of operations, for each of a forward pass. Where all weights learn, the backward pass takes two: gradients of the
activations and of the weights."""


@dataclass(frozen=True)
class Training:
    """What is to be trained. Travels to another process."""

    start: Path
    """A package."""
    work: Path
    tokens: int
    world: tuple[int, int, int]
    settings: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None
    """Of torch; None: as many as it chooses."""

    def begin(self) -> tuple[Feed, Plan]:
        """In the process that trains."""
        AcceleratorState._reset_state(reset_partial_state=True)  # a forked process has its parent's
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        self.work.mkdir(parents=True, exist_ok=True)
        feed = _feed(self.world)
        settings = TrainSettings.model_validate(dict(self.settings))
        return feed, Plan(feed.cut(0.0), self.tokens, 0, settings, "benchmark", self.start)


def speed(training: Training) -> dict[str, Any]:
    feed, plan = training.begin()
    prepared = _prepared(training, feed, plan)
    seconds: list[float] = []
    for _ in range(2 if torch.cuda.is_available() else 1):
        began = time.perf_counter()
        prepared.trainer.train()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    seen = prepared.seen
    config = read_config(training.start)
    lengths = [round(seen["tokens"] / seen["posts"])] * seen["posts"]
    passes = _PASSES[not training.settings.get("lora_rank")]
    on_gpu = torch.cuda.is_available()
    return {
        "tokens": seen["tokens"],
        "seconds": min(seconds),
        "operations": passes * forward_operations(config, lengths),
        **plan.device_use._asdict(),
        "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else 0,
    }


def losses(training: Training) -> list[float]:
    """Of every step."""
    prepared = _prepared(training, *training.begin())
    prepared.trainer.args.logging_steps = 1
    prepared.trainer.train()
    return [entry["loss"] for entry in prepared.trainer.state.log_history if "loss" in entry]


def trained(training: Training, out: Path) -> str:
    """The digest of the package's weights."""
    feed, plan = training.begin()
    return _weights(train(feed, plan, out))


def trained_until_killed(training: Training, out: Path, batches: int) -> str:
    """Kills itself after so many batches."""
    _die_after(batches)
    return trained(training, out)


def trained_on(training: Training, out: Path) -> str:
    """Goes on with a training that was killed."""
    feed, plan = training.begin()
    return _weights(train(feed, plan, out, resume=True))


def trained_by_two(training: Training, out: Path, backend: str) -> dict[str, Any]:
    """By one of two processes; which one, `torchrun` would say in the environment. The first has the result:
    `cannot_divide` and why, where each is to have a part of the weights and cannot."""
    feed, plan = training.begin()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group(backend)
    PartialState(cpu=not torch.cuda.is_available())
    why = _why_not_divided() if is_sharded() else None
    if why is not None:
        return {"cannot_divide": why}
    began = time.perf_counter()
    package = train(feed, plan, out)
    record = {} if package is None else package.manifest.training
    seconds = time.perf_counter() - began
    torch.distributed.destroy_process_group()
    if not record:
        return {}
    return {"seconds": seconds, "tokens": record["seen"]["tokens"], "losses": [loss for _, loss in record["losses"]]}


def _why_not_divided() -> str | None:
    """None if accelerate divides weights between these processes, and they can send each other what FSDP2 sends."""
    accelerator = Accelerator()
    kind, device = accelerator.distributed_type, accelerator.device
    if kind != DistributedType.FSDP:
        return (
            f"accelerate {version('accelerate')} does not divide weights on a {device.type}: asked for FSDP2, it makes "
            f"{kind.value} of the two processes, each with all weights"
        )
    part, whole = torch.ones(1, device=device), torch.ones(2, device=device)
    try:
        torch.distributed.all_gather_into_tensor(whole, part)
        torch.distributed.reduce_scatter_tensor(part, whole)
        part.tolist()  # waits for both
    except RuntimeError as error:
        return " ".join(str(error).split())[:300]
    return None


def _weights(package: ModelPackage | None) -> str:
    assert package is not None
    return package.manifest.files[WEIGHTS_FILE]


def _prepared(training: Training, feed: Feed, plan: Plan) -> PreparedTraining:
    data = training_data(feed, plan.cut_us)
    prepared = prepare(starting_point(plan, data, training.work), data, plan, training.work)
    prepared.trainer.args.save_strategy = SaveStrategy.NO
    return prepared


def _feed(world: tuple[int, int, int]) -> Feed:
    lines = [json.dumps(event).encode() for event in make_world(0, _NOW, WorldSize(*world)).events]
    return Feed(timed_event(parse_event(line), line) for line in lines)


def _die_after(batches: int) -> None:
    collate = Collator.__call__
    seen = [0]

    def dying(*arguments: Any) -> Any:
        seen[0] += 1
        if seen[0] > batches:
            os.kill(os.getpid(), signal.SIGKILL)
        return collate(*arguments)

    Collator.__call__ = dying  # type: ignore[method-assign, assignment]
