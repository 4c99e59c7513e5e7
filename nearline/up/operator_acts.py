"""What operators do to generations: the same for the commands and for the operators' page."""

from functools import partial

from nearline.ask.connections import Connections
from nearline.errors import NoRoom
from nearline.generations.building import find_package, name_package, start_building
from nearline.generations.retiring import remove_left_behind, remove_unbuilt
from nearline.up.room_beside import refuse_build_without_room
from schemas.ids import Generation
from streams.errors import ActRefused
from streams.generations import acts
from streams.generations.acts import By
from streams.generations.log import change_generations
from streams.generations.state import Generations


def build(
    connections: Connections,
    package: str,
    registry: str | None,
    by: By,
    *,
    rate: float | None = None,
    force: bool = False,
) -> Generation:
    """Begins to build a generation beside the serving one. `package` is a folder, or a generation that is published in
    the registry. Can be repeated. The caller then calls `remove_left_behind`. A build that is refused leaves nothing.
    Raises BadSettings, BadPackage, BadRegistry, NoRoom, ActRefused, StillFed, StreamsError."""
    settings, kafka = connections.settings, connections.kafka
    remove_left_behind(settings, kafka, name_package(package, registry))
    # Those who build work on an instance's data folder. Elsewhere they fetch a package for themselves, and whoever acts
    # may have neither the memory nor the disk for it: it is checked where it lies.
    found = find_package(package, registry, settings.data_dir, fetch=connections.has_instance())
    refuse = None if force else partial(refuse_build_without_room, connections, found)
    try:
        start_building(kafka, found, by, partial(acts.build, rate=rate, force=force), refuse)
    except (ActRefused, NoRoom):
        remove_unbuilt(settings, kafka, found.id)
        raise
    return found.id


def promote(
    connections: Connections, generation: Generation, by: By, *, share: float | None = None, force: bool = False
) -> str:
    """Says where the pointer is then. Raises ActRefused, StreamsError."""
    moved = change_generations(
        connections.kafka, lambda state: acts.promote(state, generation, by, share=share, force=force)
    )
    return _where(moved)


def roll_back(connections: Connections, by: By) -> str:
    """Says where the pointer is then. Raises ActRefused, StreamsError."""
    return _where(change_generations(connections.kafka, lambda state: acts.rollback(state, by)))


def _where(state: Generations) -> str:
    pointer = state.pointer
    assert pointer is not None, "what moves it refuses where there is none"
    canary = pointer.canary
    return (
        f"{pointer.serving} serves"
        + (f", {pointer.kept} is kept" if pointer.kept is not None else "")
        + (f", {canary.generation} answers {canary.share * 100:g} % of the members" if canary is not None else "")
    )
