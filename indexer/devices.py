"""The names of devices in settings: auto, cpu, cuda or cuda:N. Does not know what runs on a device."""

import re
from typing import Annotated

from pydantic import AfterValidator

from indexer.errors import NoSuchDevice


def check_name(name: str) -> str:
    """Returns the name. Raises ValueError for a name that no machine understands."""
    if re.fullmatch(r"auto|cpu|cuda(:(0|[1-9]\d?))?", name) is None:
        raise ValueError("give auto, cpu, cuda, or cuda:N such as cuda:0")
    return name


def check_presence(setting: str, name: str) -> None:
    """Raises NoSuchDevice, which names the setting, if this machine does not have the device.

    Call this in the process that uses the device, not where the settings are read: a command may run on another
    machine than the stages. Imports torch, except for auto and cpu.
    """
    if not name.startswith("cuda"):
        return
    import torch

    num_gpus = torch.cuda.device_count()
    if int(name.partition(":")[2] or 0) >= num_gpus:
        raise NoSuchDevice(f"{setting} is {name}, but torch sees {num_gpus} GPUs on this machine; give auto or cpu")


def has_gpu() -> bool:
    """Looks for the driver before it imports torch, which is slow to load."""
    from ctypes import CDLL

    try:
        CDLL("libcuda.so.1")
    except OSError:
        return False
    import torch

    return torch.cuda.is_available()


Device = Annotated[str, AfterValidator(check_name)]
"""The type of a setting that names a device."""
