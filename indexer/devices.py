"""Devices as settings name them: auto, cpu, cuda or cuda:N. Knows nothing of what runs on them."""

import re
from typing import Annotated

from pydantic import AfterValidator

from indexer.errors import NoSuchDevice


def check_name(name: str) -> str:
    """The name itself. Raises ValueError for one that means nothing, on whatever machine."""
    if re.fullmatch(r"auto|cpu|cuda(:(0|[1-9]\d?))?", name) is None:
        raise ValueError("give auto, cpu, cuda, or cuda:N such as cuda:0")
    return name


def check_presence(setting: str, name: str) -> None:
    """Raises NoSuchDevice, which names the setting, where this machine has no such device.

    For the processes that use it, not for whoever reads the settings: a command may run on another machine than the
    stages. Imports torch, but not for auto and cpu.
    """
    if not name.startswith("cuda"):
        return
    import torch

    present = torch.cuda.device_count()
    if int(name.partition(":")[2] or 0) >= present:
        raise NoSuchDevice(f"{setting} is {name}, but torch sees {present} GPUs on this machine; give auto or cpu")


Device = Annotated[str, AfterValidator(check_name)]
"""The type of a setting."""
