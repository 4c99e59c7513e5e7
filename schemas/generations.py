"""The records of the topic `generations` (JSON): one for each generation, whose key is its id, one for each rebuilt
version of the contexts, the pointer, and the autopilot's.

They say which generation serves, which others live and where, and who did what when and why. Any Kafka client can read
them. Fields that this version does not know are ignored. What may follow on what is `streams/generations/`.
"""

from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from schemas.errors import BadRecord
from schemas.ids import ContextVersion, Generation, GenerationName, Offset, Partition
from schemas.topics import FIRST_CONTEXTS

POINTER_KEY: Final = b"pointer"
AUTOPILOT_KEY: Final = b"autopilot"
"""No generation has one of these ids: an id ends with a hyphen and a part of the package's digest."""
CONTEXTS_KEY: Final = b"contexts."
"""Before the number of a version of the contexts. No generation's id begins so."""

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

    id: GenerationName
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
    ignores_room: bool = False
    """Built with `--force`: its processes do not ask whether their machine has room for it."""
    contexts: ContextVersion = FIRST_CONTEXTS
    """The version of the contexts that it reads. Records from before this field read the first one."""

    @property
    def life(self) -> tuple[Generation, datetime | None]:
        """Differs where the same generation was retired and built again meanwhile: then nothing that was made for it
        before is left."""
        return self.id, self.begun


ContextsState = Literal["building", "checked", "live", "retired"]
"""building: the inputs are read from their start. checked: compared with the version that serves, and taken over by the
next generation that is built. live: a generation reads it. retired: none does any more."""


class ContextsRecord(Struct, frozen=True):
    """Everything that is known of one version of the contexts. The first version has a record only when it is
    retired."""

    version: ContextVersion
    state: ContextsState
    since: Moment
    """When it got this state."""
    goal: dict[str, dict[Partition, Offset]] = {}
    """The ends of the inputs when it was prepared, by topic and partition. Records in wrong partitions before these are
    moved by the version that served then."""
    begins: dict[str, dict[Partition, Offset]] = {}
    """From where on its group reads the inputs, by topic and partition. What was before is in the files."""
    files: str = ""
    """The folder of exported events from which it is built; empty if the topics have everything."""
    is_prepared: bool = False
    """False as long as its topics, its offsets or events of the files are missing: no process may work for it yet."""
    check: Gate | None = None
    """How it compares with the version that served."""
    history: list[Act] = []
    """Oldest first."""


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


AutopilotStep = Literal["build", "canary"]
"""build: it is built and gated. canary: the autopilot has made it the canary."""


class AutopilotWork(Struct, frozen=True):
    """The one generation that the autopilot works on."""

    generation: Generation
    begun: Moment
    """When its building began: of the same generation, built again by somebody else, the autopilot knows nothing."""
    step: AutopilotStep
    since: Moment
    """When it came to this step. That of the canary in the pointer is the same, if it is the autopilot's."""


class AutopilotAct(Struct, frozen=True):
    """What the autopilot did, or what was done to it."""

    what: str
    at: Moment
    who: str
    reason: str = ""
    generation: Generation | None = None


class Autopilot(Struct, frozen=True):
    """Whether the autopilot is on, and what it does."""

    on: bool
    since: Moment
    """When it was switched on or off."""
    work: AutopilotWork | None = None
    failed: dict[Generation, str] = {}
    """Models that are not tried again, each with the reason, the newest last."""
    hindrance: str = ""
    """Why its next act was not possible at its newest try. It will be tried again."""
    history: list[AutopilotAct] = []
    """Oldest first."""


Record = GenerationRecord | ContextsRecord | Pointer | Autopilot

_record = msgspec.json.Decoder(GenerationRecord)
_contexts = msgspec.json.Decoder(ContextsRecord)
_pointer = msgspec.json.Decoder(Pointer)
_autopilot = msgspec.json.Decoder(Autopilot)


def key_of(record: Record) -> bytes:
    if isinstance(record, GenerationRecord):
        return record.id.encode()
    if isinstance(record, ContextsRecord):
        return CONTEXTS_KEY + b"%d" % record.version
    return POINTER_KEY if isinstance(record, Pointer) else AUTOPILOT_KEY


def encode_record(record: Record) -> bytes:
    return msgspec.json.encode(record)


def decode_record(key: bytes | None, value: bytes | None) -> Record:
    """Raises BadRecord."""
    if key is None or value is None:
        raise BadRecord(f"not a record of a generation: it has no {'key' if key is None else 'value'}")
    try:
        if key == POINTER_KEY:
            return _pointer.decode(value)
        if key == AUTOPILOT_KEY:
            return _autopilot.decode(value)
        record: GenerationRecord | ContextsRecord
        record = _contexts.decode(value) if key.startswith(CONTEXTS_KEY) else _record.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(f"not a record of a generation: {error}") from error
    if key_of(record) != key:
        raise BadRecord("not a record of a generation: its id is not its key")
    return record
