"""Which generations are to be open, and which of them answers whom. Plain data: knows neither the log that says it nor
what an open generation consists of."""

from collections.abc import Mapping
from hashlib import blake2b
from types import MappingProxyType
from typing import Final, NamedTuple

from schemas.generations import Canary, State
from schemas.ids import Generation, MemberId

_BITS: Final = 64
_NONE: Final[Mapping[Generation, State]] = MappingProxyType({})


class Roles(NamedTuple):
    """What the pointer and the records of the log say at one moment."""

    serving: Generation
    """Answers whoever names no generation."""
    canary: Canary | None = None
    """Answers a share of the members in its place."""
    others: Mapping[Generation, State] = _NONE
    """Kept or ready, the canary included. They are open so that the pointer can move to them at once; all but the
    canary answer only who names them."""

    @property
    def open(self) -> frozenset[Generation]:
        canary = () if self.canary is None else (self.canary.generation,)
        return frozenset((self.serving, *canary, *self.others))

    def state_of(self, generation: Generation) -> State:
        """What is not to be open is retired, or as good as that."""
        return "serving" if generation == self.serving else self.others.get(generation, "retired")


def is_in_share(member_id: MemberId, generation: Generation, share: float) -> bool:
    """Whether this member belongs to the canary. The same for ever and in every process. Whoever is in a share is in
    each larger one too. The generation is hashed as well, so that not always the same members come first."""
    digest = blake2b(f"{generation}\0{member_id}".encode("utf-8", "surrogatepass"), digest_size=_BITS // 8).digest()
    return int.from_bytes(digest, "big") < share * (1 << _BITS)
