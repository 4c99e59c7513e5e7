"""Part 5: the trainer on the device. Each training has a process of its own; what it does is in `training_jobs.py`."""

import os
from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any, Final

import numpy as np

from benchmarks.gpu.processes import DIVIDED, Failed, Processes, Started, free_port_store, ranked, results
from benchmarks.gpu.run import LeftOut, Run
from benchmarks.kit.table import Figure
from encoders.package.manifest import Precision

_LORA_RANK: Final = 16
_CHECKPOINT_STEPS: Final = 2
_STEPS: Final = 8
_DIE_AFTER: Final = 6
"""Batches: there are checkpoints by then, and there is work left."""
_TWICE: Final = {"gradient_checkpointing": True, "cached_gradients": True}
"""What a training does where little fits on the card."""
_LAST: Final = 10
"""Steps whose losses are compared as a mean."""
_SAME_LOSS: Final = 0.02
"""The part by which losses may differ whose sums are rounded in another way. Seen between bf16 and fp32 on a CPU, after
60 steps: 0.005."""


def measure(run: Run) -> None:
    processes = Processes(run)
    trainings = _Trainings(run, processes)
    run.arm("LoRA", partial(_speed, run, trainings, {"lora_rank": _LORA_RANK}))
    run.arm("all weights", partial(_speed, run, trainings, {}))
    run.arm("loss curve", partial(_curve, run, trainings))
    run.arm("a kill and a resume", partial(_kill, run, trainings))
    run.arm("two processes on one card", partial(_two, run, trainings, divided=False))
    run.arm("two processes, weights divided", partial(_two, run, trainings, divided=True))
    run.arm("all weights, sums in any order", partial(_speed, run, trainings, {"deterministic": False}))
    run.arm("all weights, computed twice", partial(_speed, run, trainings, _TWICE))


class _Trainings:
    """Starts the processes."""

    def __init__(self, run: Run, processes: Processes) -> None:
        self._run = run
        self._processes = processes
        self._count = 0

    def start(self, job: str, training: dict[str, Any], *more: Any, cpu: bool = False, **environment: str) -> Started:
        """`job`: a name of `training_jobs`. `cpu`: on the CPU of a machine with a GPU."""
        from benchmarks.gpu import training_jobs

        self._count += 1
        is_gpu = self._run.device.is_gpu
        work = self._run.folder / f"training-{self._count}"
        threads = None if is_gpu else 1
        whole = training_jobs.Training(work=work, world=self._run.sizes.world, threads=threads, **training)
        device = _environment(self._run, cpu=cpu)
        return self._processes.start(getattr(training_jobs, job), whole, *more, environment={**device, **environment})

    def small(self, steps: int, **more: Any) -> dict[str, Any]:
        """A training of the small model with about so many steps. `more`: of its settings."""
        batch_tokens = self._run.sizes.curve_batch_tokens
        settings = {"batch_tokens": batch_tokens, "checkpoint_steps": _CHECKPOINT_STEPS, **more}
        start = self._run.models.package("small", "fp32").folder
        return {"start": start, "tokens": steps * batch_tokens, "settings": settings}

    def by_two(self, backend: str, precision: Precision, *, divided: bool = False, cpu: bool = False) -> dict[str, Any]:
        """What the first of two processes says that train the small model. Raises Failed."""
        training = self.small(
            _STEPS, precision=precision, pass_tokens=self._run.sizes.curve_batch_tokens // 2, **_TWICE
        )
        out = self._run.folder / f"by-two-{self._count}"
        store = free_port_store()
        environments = [{**ranked(store.port, rank), **(DIVIDED if divided else {})} for rank in range(2)]
        started = [
            self.start("trained_by_two", training, out, backend, cpu=cpu, **environment) for environment in environments
        ]
        first, _ = results(*started)
        return dict(first)

    @cached_property
    def mean_loss_of_two_cpus(self) -> float:
        return float(np.mean(self.by_two("gloo", "fp32", cpu=True)["losses"]))


def _environment(run: Run, *, cpu: bool) -> dict[str, str]:
    """One card is seen, so that nothing spreads over several."""
    if cpu or not run.device.is_gpu:
        return {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    number = int(run.device.name.partition(":")[2] or 0)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[number] if visible else str(number)}


def _speed(run: Run, trainings: _Trainings, settings: dict[str, Any]) -> Iterator[Figure]:
    """In bf16 on any device."""
    rate = run.device.product_rate
    training = {
        "start": run.models.package(run.models.main).folder,
        "tokens": run.sizes.train_tokens,
        "settings": {"precision": "bf16", "checkpoint_steps": 1_000_000, **settings},
    }
    run.device.free()
    result = trainings.start("speed", training).result()
    yield Figure("tokens/s", result["tokens"] / result["seconds"])
    yield Figure("share of the floor", result["operations"] / rate / result["seconds"])
    yield Figure("tokens of a pass", result["pass_tokens"])
    yield Figure("layers computed twice (1: yes)", float(result["gradient_checkpointing"]))
    yield Figure("passes computed twice (1: yes)", float(result["cached_gradients"]))
    if run.device.is_gpu:
        yield Figure("peak memory, GB", result["peak_bytes"] / 1e9)


def _curve(run: Run, trainings: _Trainings) -> Iterator[Figure]:
    """The same training in bf16 on the device and in fp32 on a CPU, side by side."""
    steps = run.sizes.curve_steps
    both = (
        trainings.start("losses", trainings.small(steps, precision="bf16")),
        trainings.start("losses", trainings.small(steps, precision="fp32"), cpu=True),
    )
    on_device, on_cpu = (np.array(started.result()) for started in both)
    yield Figure("steps", len(on_cpu))
    yield Figure("loss of the first step, CPU", float(on_cpu[0]))
    last_on_cpu, last_on_device = (float(curve[-_LAST:].mean()) for curve in (on_cpu, on_device))
    yield Figure("loss of the last steps, CPU", last_on_cpu)
    yield Figure("loss of the last steps, device", last_on_device)
    yield Figure("difference of these / CPU", abs(last_on_device / last_on_cpu - 1), _SAME_LOSS, "at_most")
    yield Figure("largest difference of a step", float(np.abs(on_device - on_cpu).max()))


def _kill(run: Run, trainings: _Trainings) -> Iterator[Figure]:
    pass_tokens = run.sizes.curve_batch_tokens // 2
    training = trainings.small(_STEPS, precision="bf16", pass_tokens=pass_tokens, **_TWICE)
    whole, killed = run.folder / "whole", run.folder / "killed"
    straight = trainings.start("trained", training, whole)
    trainings.start("trained_until_killed", training, killed, _DIE_AFTER).wait_for_kill()
    resumed = trainings.start("trained_on", training, killed).result()
    yield Figure("ended with a package (1: yes)", float(bool(resumed)), 1.0)
    same = float(straight.result() == resumed)
    yield Figure("the same weights, byte for byte, as without a kill (1: yes)", same, 1.0)


def _two(run: Run, trainings: _Trainings, *, divided: bool) -> Iterator[Figure]:
    """NCCL may refuse two processes on one card; then they speak through gloo. That the batches of two processes are
    one batch is a test of the suite, on CPUs; here their losses are compared with those there. `divided`: each process
    has a part of each weight (FSDP2 through accelerate). Where that cannot be done, the processes say why."""
    failed: list[str] = []
    refused: list[str] = []
    for backend in ("nccl", "gloo") if run.device.is_gpu else ("gloo",):
        try:
            both = trainings.by_two(backend, "bf16", divided=divided)
        except Failed as error:
            failed.append(f"{backend}: {error}")
            print(f"    {failed[-1]}", flush=True)
            continue
        if "cannot_divide" in both:
            refused.append(f"{backend}: {both['cannot_divide']}")
            print(f"    {refused[-1]}", flush=True)
            continue
        yield Figure(f"through {backend}, tokens/s of both", both["tokens"] / both["seconds"])
        ratio = float(np.mean(both["losses"])) / trainings.mean_loss_of_two_cpus
        yield Figure("difference of the mean loss to fp32 on a CPU / that", abs(ratio - 1), _SAME_LOSS, "at_most")
        return
    if failed:
        raise Failed("; ".join([*failed, *refused]))
    raise LeftOut("; ".join(refused))
