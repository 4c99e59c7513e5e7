"""Which version of the contexts a worker makes, and what it leaves to the workers of another version.

While a version is rebuilt, or an older one is kept for the way back, two versions read the same inputs. Each has rows,
hops and contexts of its own. What goes back into the inputs, or to the operators, must not come twice.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from schemas.ids import ContextVersion, Offset
from schemas.topics import FIRST_CONTEXTS, ContextNames, context_names, first_name
from streams.kafka.records import Place


@dataclass(frozen=True)
class Role:
    """Of all workers of one version. The default is that of the only version."""

    version: ContextVersion = FIRST_CONTEXTS
    moved_before: Mapping[Place, Offset] = field(default_factory=dict)
    """Records in wrong partitions before these offsets are moved by an older version. From there on every version moves
    them: a post or a member that comes twice changes nothing."""
    sends_dead_letters: Callable[[], bool] = lambda: True
    """Asked for each dead letter. Only the version that the serving generation reads sends them: a dead letter that was
    there twice could be replayed twice, and its activity would count twice."""

    @property
    def names(self) -> ContextNames:
        return context_names(self.version)

    def leaves_moving(self, place: Place, offset: Offset) -> bool:
        """True if this record in a wrong partition is not to be moved by this version. Of a record from an exported
        file the moved one was exported too, or is in the input."""
        return first_name(place.topic) != place.topic or offset < self.moved_before.get(place, 0)


ONLY_VERSION: Final = Role()
