"""What the name of a process says, such as `encode-blue-0`. Which names there are is in `nearline/up/names.py`."""

import re
from typing import Final, NamedTuple

from schemas.generations import PlaceName
from schemas.ids import ContextVersion
from streams.generations.state import PLACES

_VERSION: Final = re.compile(r"v(\d+)-(.*)", re.DOTALL)


class ProcessName(NamedTuple):
    """`version`: of the contexts, if it is not the first one."""

    stage: str
    place: PlaceName | None = None
    slot: str | None = None
    version: ContextVersion | None = None

    def __str__(self) -> str:
        version = None if self.version is None else f"v{self.version}"
        return "-".join(part for part in (self.stage, self.place, version, self.slot) if part is not None)

    @property
    def group(self) -> str:
        """The name without the slot: all processes with it are in one consumer group."""
        return str(self._replace(slot=None))


def parse(name: str) -> ProcessName:
    """Takes any name. Whether there is such a process is not checked."""
    stage, _, rest = name.partition("-")
    for place in PLACES:
        if rest.partition("-")[0] == place:
            return ProcessName(stage, place, rest.partition("-")[2] or None)
    if (numbered := _VERSION.fullmatch(rest)) is not None:
        return ProcessName(stage, None, numbered[2] or None, ContextVersion(int(numbered[1])))
    return ProcessName(stage, None, rest or None)
