"""What the topic `generations` says at one moment: the newest record of each generation and of each rebuilt version of
the contexts, the pointer, and the autopilot's record.

Knows no Kafka. What may be changed is in `acts.py` beside this file.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from schemas.errors import BadRecord
from schemas.generations import (
    Autopilot,
    ContextsRecord,
    GenerationRecord,
    PlaceName,
    Pointer,
    Record,
    decode_record,
    key_of,
)
from schemas.ids import ContextVersion, Generation, Offset
from schemas.topics import FIRST_CONTEXTS, TopicSpec, context_topics, generation_topics, shared_topics

PLACES: Final[tuple[PlaceName, ...]] = ("blue", "green")
MOST_LIVE: Final = len(PLACES)


@dataclass(frozen=True)
class Damage:
    """A record that was refused. It stands until a good record with the same key follows it."""

    key: bytes | None
    offset: Offset
    cause: str

    def __str__(self) -> str:
        return f"the record at offset {self.offset} of the topic generations is refused: {self.cause}"


@dataclass(frozen=True)
class Generations:
    """Never changed. Two with the same records are equal."""

    records: Mapping[Generation, GenerationRecord] = field(default_factory=dict)
    pointer: Pointer | None = None
    damages: tuple[Damage, ...] = ()
    autopilot: Autopilot | None = None
    """None if it was never switched on."""
    contexts: Mapping[ContextVersion, ContextsRecord] = field(default_factory=dict)
    """The versions that were rebuilt, and the first one once it is retired."""

    @property
    def autopilot_is_on(self) -> bool:
        return self.autopilot is not None and self.autopilot.on

    @property
    def serving(self) -> GenerationRecord | None:
        """None if nothing was ever founded."""
        return self._named(None if self.pointer is None else self.pointer.serving)

    @property
    def kept(self) -> GenerationRecord | None:
        return self._named(None if self.pointer is None else self.pointer.kept)

    @property
    def canary(self) -> GenerationRecord | None:
        canary = None if self.pointer is None else self.pointer.canary
        return self._named(None if canary is None else canary.generation)

    @property
    def live(self) -> list[GenerationRecord]:
        """The serving one first."""
        live = [record for record in self.records.values() if record.state != "retired"]
        return sorted(live, key=lambda record: record.state != "serving")

    @property
    def all_records(self) -> list[Record]:
        """The pointer's and the autopilot's last."""
        others = (record for record in (self.pointer, self.autopilot) if record is not None)
        return [*self.records.values(), *self.contexts.values(), *others]

    @property
    def last_good(self) -> list[Record]:
        """The records that stand in place of the damaged ones."""
        damaged_keys = {damage.key for damage in self.damages}
        return [record for record in self.all_records if key_of(record) in damaged_keys]

    @property
    def context_versions(self) -> list[ContextVersion]:
        """Those whose stages run: a generation reads them, or will. Before anything was founded the first one."""
        if not self.records:
            return [FIRST_CONTEXTS]
        coming = self.coming_contexts
        prepared = [coming.version] if coming is not None and coming.is_prepared else []
        return sorted({*(record.contexts for record in self.live), *prepared})

    @property
    def coming_contexts(self) -> ContextsRecord | None:
        """The version that is being rebuilt, or waits for a generation that takes it over."""
        coming = (record for record in self.contexts.values() if record.state in ("building", "checked"))
        return next(coming, None)

    def contexts_of(self, generation: Generation) -> ContextVersion:
        """The version that this generation reads."""
        record = self.records.get(generation)
        return FIRST_CONTEXTS if record is None else record.contexts

    @property
    def topics(self) -> list[TopicSpec]:
        """All that must exist."""
        of_contexts = (spec for version in self.context_versions for spec in context_topics(version))
        of_generations = (spec for record in self.live for spec in generation_topics(record.id))
        return [*shared_topics(), *of_contexts, *of_generations]

    def at(self, place: PlaceName) -> GenerationRecord | None:
        """The generation that lives there."""
        return next((record for record in self.live if record.place == place), None)

    def with_records(self, records: Iterable[Record]) -> "Generations":
        changed, pointer, autopilot = dict(self.records), self.pointer, self.autopilot
        contexts = dict(self.contexts)
        keys = set()
        for record in records:
            keys.add(key_of(record))
            if isinstance(record, Pointer):
                pointer = record
            elif isinstance(record, Autopilot):
                autopilot = record
            elif isinstance(record, ContextsRecord):
                contexts[record.version] = record
            else:
                changed[record.id] = record
        damages = tuple(damage for damage in self.damages if damage.key not in keys)
        return Generations(changed, pointer, damages, autopilot, contexts)

    def with_message(self, key: bytes | None, value: bytes | None, offset: Offset) -> "Generations":
        """With the next record of the topic. A damaged one leaves what its key stood for as it was."""
        try:
            return self.with_records([decode_record(key, value)])
        except BadRecord as error:
            others = tuple(damage for damage in self.damages if damage.key != key)
            return replace(self, damages=(*others, Damage(key, offset, str(error))))

    def contradiction(self) -> str | None:
        """Why these records cannot all be true, such as in the middle of a transaction, or where one was damaged. None
        if they fit together."""
        if self.pointer is None:
            return "there are generations and no pointer" if self.records else None
        return self._pointer_contradiction(self.pointer) or self._place_contradiction()

    def _pointer_contradiction(self, pointer: Pointer) -> str | None:
        for state, named in (("serving", pointer.serving), ("kept", pointer.kept)):
            by_record = [record.id for record in self.records.values() if record.state == state]
            if by_record != ([named] if named is not None else []):
                return f"by the pointer {named} is {state}, and by the records {', '.join(by_record) or 'none'}"
        if pointer.canary is not None:
            record = self.canary
            if record is None or record.state in ("serving", "retired"):
                return f"the canary {pointer.canary.generation} is {record.state if record else 'unknown'}"
        return None

    def _place_contradiction(self) -> str | None:
        places = [record.place for record in self.live]
        if None in places or len(set(places)) != len(places):
            return f"the live generations {', '.join(record.id for record in self.live)} have not each a place"
        return None

    def _named(self, generation: Generation | None) -> GenerationRecord | None:
        return None if generation is None else self.records.get(generation)
