"""In which form everything that is stored is written: a number for each kind of thing.

A number grows when the version before could not read what is written from then on; a field that it ignores needs no new
number. A new form comes in two releases: the first one reads it, the next one writes it. So the version before reads
everything, and can be rolled back to. What was stored before there were numbers is of form 1.

What was written is said beside it: of topics and collections in the topic `forms`, of a data folder in its file
`forms.json`, and once more in each store of rows, snapshot and embedded cold tier, which may be copied elsewhere. A
process that meets a newer form, or a kind that it does not know, says so and ends before it has changed anything.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from schemas.errors import NewerForm


class Form(NamedTuple):
    """`newest`: all forms up to this one can be read. `written`: what this version writes."""

    newest: int = 1
    written: int = 1


Forms = Mapping[str, Form]

IN_KAFKA: Final[Forms] = MappingProxyType(
    {
        "events": Form(),
        "hops": Form(),
        "contexts": Form(),
        "changelogs": Form(),
        "embeddings": Form(),
        "trending": Form(),
        "dead-letters": Form(),
        "generations": Form(),
        "models": Form(),
        "replays": Form(),
        "collections": Form(),
    }
)
"""The topics, and the collections of a Qdrant server, which all machines share as well."""

ROWS: Final = "rows"
HOT_SNAPSHOT: Final = "hot-snapshot"
COLD_TIER: Final = "cold-tier"
IN_FOLDER: Final[Forms] = MappingProxyType(
    {ROWS: Form(), HOT_SNAPSHOT: Form(), COLD_TIER: Form(), "last-generations": Form(), "checked-packages": Form()}
)
"""What lies in a data folder."""


def refuse_newer(where: str, stored: Mapping[str, int], known: Forms) -> None:
    """`stored`: the newest form in which each kind was written. Raises NewerForm, which names `where`."""
    for kind, form in sorted(stored.items()):
        if kind not in known:
            raise NewerForm(where, f"{kind} of form {form}, which this version does not know")
        newest = known[kind].newest
        if form > newest:
            raise NewerForm(where, f"{kind} of form {form}, and this version reads them up to form {newest}")


def to_write_down(stored: Mapping[str, int], known: Forms) -> dict[str, int]:
    """What this version writes in a newer form than was written before."""
    return {kind: form.written for kind, form in known.items() if form.written > stored.get(kind, 0)}
