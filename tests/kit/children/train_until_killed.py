"""Trains as `nearline train` does with two threads, and kills itself at a step: `... EVENTS OUT CONFIG TOKENS STEP`."""

import os
import signal
import sys

import torch

from nearline import cli
from trainer.model.collator import Collator

_collate = Collator.__call__
_batches = [0]

if __name__ == "__main__":
    events, out, config, tokens, last = sys.argv[1:]

    def dying(*arguments: object) -> object:
        _batches[0] += 1
        if _batches[0] > int(last):
            os.kill(os.getpid(), signal.SIGKILL)
        return _collate(*arguments)  # type: ignore[arg-type]

    torch.set_num_threads(2)
    Collator.__call__ = dying  # type: ignore[method-assign, assignment]
    sys.argv = ["nearline", "train", "--events", events, "--out", out, "--config", config, "--tokens", tokens]
    cli.main()
