"""Each process's share of the machine: how many threads it may use, and which GPU.

All processes together get no more threads than there are cores, so that none waits for another.
"""

import os
from collections.abc import Mapping
from typing import Final

from nearline.settings.settings import Settings

_THREAD_COUNTS: Final = (
    "OMP_NUM_THREADS",  # torch and FAISS
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "RAYON_NUM_THREADS",  # tokenizers
)


def encode_threads(settings: Settings) -> int:
    """For the model in each encode process: `encode.threads`, else an equal share of the cores that the hot tier's
    search does not use."""
    if settings.encode.threads is not None:
        return settings.encode.threads
    return max(1, (_num_cores() - settings.hot.threads) // settings.encode.workers)


def encode_device(settings: Settings, slot: int) -> str:
    """Where there are several GPUs each encode process gets one; with more processes than GPUs, some share."""
    device = settings.encode.device
    if device not in ("auto", "cuda"):
        return device
    import torch

    num_gpus = torch.cuda.device_count()
    return f"cuda:{slot % num_gpus}" if num_gpus > 1 else device


def child_environment(name: str, settings: Settings) -> Mapping[str, str]:
    """Our environment with the numbers of threads. Libraries read them when they are loaded, so a process cannot set
    them for itself."""
    stage = name.partition("-")[0]
    threads = {"encode": encode_threads(settings), "serve": settings.hot.threads}.get(stage, 1)
    return {**os.environ, **dict.fromkeys(_THREAD_COUNTS, str(threads)), "TOKENIZERS_PARALLELISM": "false"}


def _num_cores() -> int:
    return len(os.sched_getaffinity(0))
