"""What the loops of an encode worker read, and how many turns they may have at the same time."""

from typing import Final, NamedTuple

from schemas.ids import Kind


class Source(NamedTuple):
    """What one loop reads. `name` is unique within a worker and never changes: it is part of the transactional id."""

    name: str
    kind: Kind


SOURCES: Final = (Source("post", "post"), Source("post-2", "post"), Source("member", "member"))
CONCURRENT_TURNS: Final = 2
