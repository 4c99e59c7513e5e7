"""Trains as `nearline train` does, in one of two processes: `EVENTS OUT CONFIG TOKENS LAST [OPTION…]`. It kills itself
after LAST batches.

Where the environment asks for FSDP, each process has a part of the weights. accelerate does that for GPUs alone, so it
is told that these processes have GPUs, and the trainer that its card is one. The rest is as on GPUs, through gloo.
"""

import os
import signal
import sys
from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from nearline import cli
from trainer import device_use, plan
from trainer.device_use import Card, is_sharded
from trainer.model.collator import Collator

_collate = Collator.__call__
_begin = AcceleratorState.__init__
_batches = [0]


def _dying(*arguments: Any) -> Any:
    _batches[0] += 1
    if _batches[0] > int(last):
        os.kill(os.getpid(), signal.SIGKILL)
    return _collate(*arguments)


def _begin_with_gpus(self: AcceleratorState, *arguments: Any, **options: Any) -> None:
    state = PartialState(cpu=True)
    if state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU
    _begin(self, *arguments, **options)


def _seeming_card() -> Card:
    return Card("cuda", "a card", 80_000_000_000, has_bf16=True, shards=2, idle=0)


if __name__ == "__main__":
    events, out, config, tokens, last, *more = sys.argv[1:]
    PartialState(cpu=True)
    Collator.__call__ = _dying  # type: ignore[method-assign, assignment]
    if is_sharded():
        AcceleratorState.__init__ = _begin_with_gpus  # type: ignore[method-assign]
        device_use.this_card = plan.this_card = _seeming_card  # type: ignore[attr-defined]
    options = ["--out", out, "--config", config, "--tokens", tokens, "--holdout", "0", *more]
    sys.argv = ["nearline", "train", "--events", events, *options]
    cli.main()
