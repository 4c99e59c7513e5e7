"""The names of an instance's processes: the stage, the place if it has one, and the slot if there are several.

contexts-0 …       the context stage
trending           the trending stage
encode-blue-0 …    the encode stage of the generation that lives at blue
cold-green         the index stage of the generation that lives at green, and its embedded cold tier
serve              the retriever; several are serve-0 …
"""

from typing import Final, NamedTuple

from nearline.errors import BadSettings
from nearline.settings.settings import Settings
from schemas.generations import PlaceName
from streams.generations.state import PLACES

CONTEXTS: Final = "contexts"
TRENDING: Final = "trending"
ENCODE: Final = "encode"
COLD: Final = "cold"
SERVE: Final = "serve"
STAGES: Final = (CONTEXTS, TRENDING, ENCODE, COLD, SERVE)


class ProcessName(NamedTuple):
    stage: str
    place: PlaceName | None = None
    slot: str | None = None

    def __str__(self) -> str:
        return "-".join(part for part in self if part is not None)

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
    return ProcessName(stage, None, rest or None)


def names_of_all_generations(settings: Settings) -> list[str]:
    """The processes that run whatever generations there are."""
    contexts = [f"{CONTEXTS}-{slot}" for slot in range(settings.contexts.workers)]
    return [*contexts, TRENDING, *serve_names(settings)]


def serve_names(settings: Settings) -> list[str]:
    """The processes of the retriever. A single one has no slot."""
    workers = settings.serve.workers
    return [SERVE] if workers == 1 else [f"{SERVE}-{slot}" for slot in range(workers)]


def all_names(settings: Settings) -> list[str]:
    """All processes that an instance may have, but for its broker."""
    return [*names_of_all_generations(settings), *(name for place in PLACES for name in names_at(settings, place))]


def names_at(settings: Settings, place: PlaceName) -> list[str]:
    """The processes that run while a generation lives there."""
    encode = [str(ProcessName(ENCODE, place, str(slot))) for slot in range(settings.encode.workers)]
    return [*encode, str(ProcessName(COLD, place))]


def check_name(name: str) -> ProcessName:
    """Raises BadSettings where no process can have this name."""
    parsed = parse(name)
    has_number = (parsed.slot or "").isdecimal()
    forms = {
        CONTEXTS: parsed.place is None and has_number,
        TRENDING: name == TRENDING,
        ENCODE: parsed.place is not None and has_number,
        COLD: parsed.place is not None and parsed.slot is None,
        SERVE: parsed.place is None and (parsed.slot is None or has_number),
    }
    if not forms.get(parsed.stage, False):
        raise BadSettings(
            f"{name} is no process; there are, for example: contexts-0, trending, encode-blue-0, cold-blue, serve"
        )
    return parsed
