"""Each process's share of the machine: how many threads it may use, which GPU, and how much of its memory.

All processes together get no more threads than there are cores, so that no thread waits for another. Knows nothing of
what a process does.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Final

from indexer.devices import has_gpu
from nearline.settings.settings import Settings

_THREAD_COUNTS: Final = (
    "OMP_NUM_THREADS",  # torch
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",  # NumPy, with which the hot tier is searched
    "RAYON_NUM_THREADS",  # tokenizers
)


def encode_threads(settings: Settings) -> int:
    """The number of threads for the model in each encode process: `encode.threads`, or else an equal share of the cores
    that the search of the hot tier does not use."""
    if settings.encode.threads is not None:
        return settings.encode.threads
    searching = settings.hot.threads * settings.serve.workers
    return max(1, (_num_cores() - searching) // settings.encode.workers)


def encode_device(settings: Settings, slot: int) -> str:
    """The device of an encode process. If there are several GPUs, each process gets one of them. If there are more
    processes than GPUs, some processes share a GPU."""
    device = settings.encode.device
    if device not in ("auto", "cuda"):
        return device
    import torch

    num_gpus = torch.cuda.device_count()
    return f"cuda:{slot % num_gpus}" if num_gpus > 1 else device


def encode_gpu(settings: Settings, slot: int) -> str | None:
    """The GPU of an encode process, as `gpu_named` gives it."""
    return None if gpu_named(settings.encode.device) is None else gpu_named(encode_device(settings, slot))


def gpu_named(device: str) -> str | None:
    """By number, so that two names of one device are one. `device`: as in settings. None for a CPU."""
    if device == "cpu" or (device == "auto" and not has_gpu()):
        return None
    return device if ":" in device else "cuda:0"


def limit_gpu_memory(devices: Iterable[str], fraction: float | None) -> None:
    """What this process may take of the memory of each of these devices, from now on. Beyond it torch has none left, as
    if the card were full. Does nothing where there is no GPU. `devices`: names as in settings."""
    names = {name for name in devices if name != "cpu"}
    if fraction is None or not names or not has_gpu():
        return
    import torch

    for number in {int(name.partition(":")[2] or 0) for name in names}:
        torch.cuda.set_per_process_memory_fraction(float(fraction), number)


def child_environment(name: str, settings: Settings) -> Mapping[str, str]:
    """Our environment, plus variables with the number of threads. Libraries read these variables when they are loaded,
    so a process cannot set them for itself."""
    process = name.partition("-")[0]
    threads = {"encode": encode_threads(settings), "serve": settings.hot.threads}.get(process, 1)
    return {**os.environ, **dict.fromkeys(_THREAD_COUNTS, str(threads)), "TOKENIZERS_PARALLELISM": "false"}


def _num_cores() -> int:
    return len(os.sched_getaffinity(0))
