"""What the topic `generations` says at one moment: the newest record of each generation, and the pointer.

Knows no Kafka. What may be changed is in `acts.py` beside this file.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from schemas.errors import BadRecord
from schemas.generations import GenerationRecord, PlaceName, Pointer, Record, decode_record, key_of
from schemas.ids import Generation, Offset

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

    def at(self, place: PlaceName) -> GenerationRecord | None:
        """The generation that lives there."""
        return next((record for record in self.live if record.place == place), None)

    def with_records(self, records: Iterable[Record]) -> "Generations":
        changed, pointer = dict(self.records), self.pointer
        keys = set()
        for record in records:
            keys.add(key_of(record))
            if isinstance(record, Pointer):
                pointer = record
            else:
                changed[record.id] = record
        damages = tuple(damage for damage in self.damages if damage.key not in keys)
        return Generations(changed, pointer, damages)

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
