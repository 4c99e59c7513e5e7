"""How much memory and disk of this machine, and how much of its GPUs, is free now.

Of memory the least counts: what the kernel could give without swapping, and what each control group that this process
is in has left, such as that of a container. Knows nothing of what is wanted.
"""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from nearline.generations.room import Free

_PROC: Final = Path("/proc")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_V1: Final = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2: Final = ("memory.max", "memory.current", "inactive_file")
"""The files of a group's limit and of what it uses, and the line of its `memory.stat` with the cached pages that the
kernel takes back before it refuses memory."""


def free_here(folder: Path) -> Free:
    """`folder`: where files would be written."""
    return Free(free_memory, partial(free_disk, folder), free_on_gpu)


def free_memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """In bytes. `proc` and `cgroups` are where the kernel shows its files."""
    return min([_available(proc), *_left_in_groups(proc, cgroups)])


def free_disk(folder: Path) -> int:
    """In bytes, for users who are not root. The folder need not exist yet."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def free_on_gpu(device: str) -> int:
    """In bytes. `device` is cuda or cuda:N."""
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


def _available(proc: Path) -> int:
    for line in (proc / "meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    raise ValueError(f"{proc / 'meminfo'} has no MemAvailable, which every Linux since 3.14 has")


def _left_in_groups(proc: Path, cgroups: Path) -> Iterator[int]:
    """Of each group with a limit. The groups around a group limit it too."""
    for line in (proc / "self" / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            root, files = cgroups / "memory", _V1
        elif not controllers:
            root, files = cgroups, _V2
        else:
            continue
        # Inside a container the path may be that outside it. Then only the root is there, which is the container's.
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            if folder.is_relative_to(root) and (left := _left(folder, *files)) is not None:
                yield left


def _left(folder: Path, limit_file: str, usage_file: str, cached: str) -> int | None:
    """None if the group has no limit."""
    try:
        limit = (folder / limit_file).read_text().strip()
        used = int((folder / usage_file).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    return None if limit == "max" else max(0, int(limit) - used + int(stat.get(cached, 0)))
