"""Decides whether an answer is whole, by the rule of the log: the hot tier holds each partition from its floor on, the
cold tier holds it up to its position, so nothing is missing where floor <= position. And the feed of the hot tier must
have reached the end of the topic a moment ago.

Pure functions. Answers and `/readyz` use the same ones.
"""

from typing import Final

from indexer.tiers import Offsets
from retriever.reasons import Code, Reason
from schemas.ids import Offset

_BEGINNING: Final = Offset(0)


def covers(floor: Offsets, position: Offsets) -> bool:
    """Whether a cold answer of this position and a hot search with this floor hold every post between them.

    A partition that the cold tier does not name is at its beginning. A hot tier that names no partition has not begun
    to read, so it covers nothing."""
    return bool(floor) and not _uncovered(floor, position)


def holds_everything(floor: Offsets) -> bool:
    """Whether the hot tier holds all partitions from their beginning on, so that the cold tier has nothing to add."""
    return covers(floor, {})


def reasons(floor: Offsets, position: Offsets, feed_problem: Reason | None) -> list[Reason]:
    """Why something may be missing; empty for a whole answer. `feed_problem` is what the hot feed says of itself."""
    found = [] if feed_problem is None else [feed_problem]
    if not floor:
        # The feed's own sentence is better, if it has one.
        return found or [Reason(Code.HOT_CATCHING_UP, "the hot tier has not begun to read")]
    uncovered = _uncovered(floor, position)
    if uncovered:
        number = len(floor.keys() | position.keys())
        sentence = f"in {uncovered} of {number} partitions the hot tier begins after what the cold tier has written"
        found.append(Reason(Code.COLD_BEHIND, sentence))
    return found


def _uncovered(floor: Offsets, position: Offsets) -> int:
    """In how many partitions there may be records that neither tier holds. A partition in which the hot tier has not
    begun to read is one of them."""
    behind = sum(offset > position.get(partition, _BEGINNING) for partition, offset in floor.items())
    return behind + sum(partition not in floor for partition in position)
