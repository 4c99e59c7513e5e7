"""The names of an instance's processes: the stage, the place if it has one, and the slot if there are several.

contexts-0 …       the context stage; contexts-v2-0 … that of a version of the contexts that was rebuilt
trending           the trending stage
autopilot          replaces the model by itself, while it is switched on
monitor            says how far each stage is behind, and which one stands still
encode-blue-0 …    the encode stage of the generation that lives at blue
cold-green         the index stage of the generation that lives at green, and its embedded cold tier
serve              the retriever; several are serve-0 …
"""

from typing import Final

from nearline.errors import BadSettings
from nearline.settings.process_names import ProcessName, parse
from nearline.settings.settings import Settings
from schemas.generations import PlaceName
from schemas.ids import ContextVersion
from schemas.topics import FIRST_CONTEXTS
from streams.generations.state import PLACES

CONTEXTS: Final = "contexts"
TRENDING: Final = "trending"
AUTOPILOT: Final = "autopilot"
MONITOR: Final = "monitor"
ENCODE: Final = "encode"
COLD: Final = "cold"
SERVE: Final = "serve"
STAGES: Final = (CONTEXTS, TRENDING, AUTOPILOT, MONITOR, ENCODE, COLD, SERVE)


def names_of_all_generations(settings: Settings) -> list[str]:
    """The processes that run whatever generations there are."""
    contexts = [f"{CONTEXTS}-{slot}" for slot in range(settings.contexts.workers)]
    return [*contexts, TRENDING, AUTOPILOT, MONITOR, *serve_names(settings)]


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


def of_version(name: str, version: ContextVersion) -> str:
    """The process that does for this version of the contexts what `contexts-0` and the like do for the first."""
    return str(parse(name)._replace(version=None if version == FIRST_CONTEXTS else version))


def check_name(name: str) -> ProcessName:
    """Raises BadSettings where no process can have this name."""
    parsed = parse(name)
    has_number = (parsed.slot or "").isdecimal()
    forms = {
        CONTEXTS: parsed.place is None and has_number and parsed.version != FIRST_CONTEXTS,
        TRENDING: name == TRENDING,
        AUTOPILOT: name == AUTOPILOT,
        MONITOR: name == MONITOR,
        ENCODE: parsed.place is not None and has_number,
        COLD: parsed.place is not None and parsed.slot is None,
        SERVE: parsed.place is None and (parsed.slot is None or has_number),
    }
    if not forms.get(parsed.stage, False) or (parsed.version is not None and parsed.stage != CONTEXTS):
        raise BadSettings(
            f"{name} is no process; there are, for example: contexts-0, trending, encode-blue-0, cold-blue, serve"
        )
    return parsed
