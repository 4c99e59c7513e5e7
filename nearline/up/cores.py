"""How many threads each process may use: together no more than there are cores, so that none waits for its own."""

import os
from collections.abc import Mapping
from typing import Final

from nearline.settings.settings import Settings

_COUNTS: Final = (
    "OMP_NUM_THREADS",  # torch and FAISS
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "RAYON_NUM_THREADS",  # tokenizers
)


def encode_threads(settings: Settings) -> int:
    """Of the model in each encode process: what its setting says, else its share of the cores that searching leaves."""
    if settings.encode.threads is not None:
        return settings.encode.threads
    return max(1, (_cores() - settings.hot.threads) // settings.encode.workers)


def child_environment(name: str, settings: Settings) -> Mapping[str, str]:
    """The environment of a child, with the counts that libraries read when they are loaded."""
    stage = name.partition("-")[0]
    number = {"encode": encode_threads(settings), "serve": settings.hot.threads}.get(stage, 1)
    return {**os.environ, **dict.fromkeys(_COUNTS, str(number)), "TOKENIZERS_PARALLELISM": "false"}


def _cores() -> int:
    return len(os.sched_getaffinity(0))
