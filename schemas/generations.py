"""The records of the topic `generations` (JSON): one for each generation, whose key is its id, and the pointer.

They say which generation serves, which others live and where, and who did what when and why. Any Kafka client can read
them. Fields that this version does not know are ignored. What may follow on what is `streams/generations/`.
"""

from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from schemas.errors import BadRecord
from schemas.ids import Generation, Offset, Partition

POINTER_KEY: Final = b"pointer"
"""No generation has this id: an id ends with a hyphen and a part of the package's digest."""

State = Literal["building", "ready", "serving", "kept", "retired"]
"""building: is filled. ready: complete, and answers nothing but a canary's share. serving: answers. kept: has served,
is still fed, and is the way back. retired: is fed no more, and may be deleted."""
PlaceName = Literal["blue", "green"]
"""Where a live generation runs."""
Moment = Annotated[datetime, Meta(tz=True)]
"""Written as RFC 3339."""
Share = Annotated[float, Meta(gt=0, lt=1)]
Rate = Annotated[float, Meta(gt=0)]


class PackageSource(Struct, frozen=True, omit_defaults=True):
    """Where a generation's package lies: in a folder, or in a registry under the generation's id."""

    folder: str | None = None
    registry: str | None = None
    """A folder or a URL such as `s3://bucket/path`."""

    def __str__(self) -> str:
        return self.folder or self.registry or "nowhere"


class GateFigure(Struct, frozen=True):
    """One check of the gate. Without a bound it is only shown."""

    name: str
    figure: float | None
    bound: float | None
    holds: bool
    note: str = ""


class Gate(Struct, frozen=True):
    """What the newest run of the gate found."""

    at: Moment
    figures: list[GateFigure]

    @property
    def holds(self) -> bool:
        return bool(self.figures) and all(figure.holds for figure in self.figures)


class Act(Struct, frozen=True):
    """What was done to a generation. `who` is the host and process of an operator, or the name that was given."""

    what: str
    at: Moment
    who: str
    reason: str = ""


class GenerationRecord(Struct, frozen=True):
    """Everything that is known of one generation. A retired one has no place."""

    id: Generation
    state: State
    place: PlaceName | None
    package: PackageSource
    digest: str
    """SHA-256 of the package's nearline.json."""
    since: Moment
    """When it got this state."""
    goal: dict[str, dict[Partition, Offset]] = {}
    """The ends of the context topics when its building began, by topic and partition: what it must have encoded before
    it is ready."""
    gate: Gate | None = None
    history: list[Act] = []
    """Oldest first."""
    rate: Rate | None = None
    """While it is built, each of its encode processes encodes at most so many contexts a second."""
    begun: Moment | None = None
    """When it was founded, or its building began. What was retired and is built again begins anew."""

    @property
    def life(self) -> tuple[Generation, datetime | None]:
        """Differs where the same generation was retired and built again meanwhile: then nothing that was made for it
        before is left."""
        return self.id, self.begun


class Canary(Struct, frozen=True):
    """A generation that answers a share of the members, though another one serves."""

    generation: Generation
    share: Share
    since: Moment


class Pointer(Struct, frozen=True):
    """Which generation answers questions."""

    serving: Generation
    kept: Generation | None = None
    canary: Canary | None = None
    rolled_back: bool = False
    """True if the newest move was a rollback. Then the kept generation is the one that was left, not a way back."""


Record = GenerationRecord | Pointer

_record = msgspec.json.Decoder(GenerationRecord)
_pointer = msgspec.json.Decoder(Pointer)


def key_of(record: Record) -> bytes:
    return POINTER_KEY if isinstance(record, Pointer) else record.id.encode()


def encode_record(record: Record) -> bytes:
    return msgspec.json.encode(record)


def decode_record(key: bytes | None, value: bytes | None) -> Record:
    """Raises BadRecord."""
    if key is None or value is None:
        raise BadRecord(f"not a record of a generation: it has no {'key' if key is None else 'value'}")
    try:
        if key == POINTER_KEY:
            return _pointer.decode(value)
        record = _record.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(f"not a record of a generation: {error}") from error
    if record.id.encode() != key:
        raise BadRecord("not a record of a generation: its id is not its key")
    return record
