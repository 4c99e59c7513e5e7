"""The ids of canaries: posts that the monitor sends and deletes again, to see how long both take to be seen.

All ids that begin with `nearline-canary` are theirs, of posts and of members. Members are shown no canary, no member's
history holds one, and nobody can act on one.
"""

from collections.abc import Collection
from typing import Final

from schemas.ids import MemberId, PostId

CANARY_AUTHOR: Final = MemberId("nearline-canary")
"""Of all canaries."""
RESERVED: Final = "is reserved for the canaries of the monitor; use an id that does not begin with nearline-canary"
"""The end of the sentence for whoever uses such an id."""


def is_reserved(entity_id: str) -> bool:
    """Whether only canaries, or their author, may have it."""
    return entity_id.startswith(CANARY_AUTHOR)


def asks_for_canaries(only_authors: Collection[str] | None) -> bool:
    """Whether a question with these `only_authors` is for canaries and nothing else. Only the monitor asks so. It is no
    question of a member, and is not counted as one."""
    if not only_authors:
        return False
    return all(author == CANARY_AUTHOR for author in only_authors)


def canary_id(monitor: str, number: int) -> PostId:
    """`monitor` tells several monitors apart. The same monitor uses the same few ids again and again, so that what a
    killed one has left can be found, and no tier, row or topic grows with the canaries."""
    return PostId(f"{CANARY_AUTHOR}-{monitor}-{number}")
